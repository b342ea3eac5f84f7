"""Numbers are read exactly, however they are spelled, and nothing that is no number is read."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.equality.arithmetic import EnormousError
from eval.equality.notation import plain
from eval.equality.numerals import exact, integer_digits, is_numeral, leaves_a_sum


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("025", 25), ("27.", 27), ("1,234", 1234), ("1{,}234", 1234), (r"10\,080", 10080), ("1 000", 1000),
        (r"11,\! 111,\! 100", 11111100), ("-0", 0), (".75", Fraction(3, 4)), (r"\frac12", Fraction(1, 2)),
        (r"\frac{-1}{2}", Fraction(-1, 2)), ("2/4", Fraction(1, 2)), (r"2\frac{1}{3}", Fraction(7, 3)),
        ("2 1/4", Fraction(9, 4)), (r"-2\frac{1}{2}", Fraction(-5, 2)), ("½", Fraction(1, 2)), ("1½", Fraction(3, 2)),
        (r"0.\overline{3}", Fraction(1, 3)), (r"0.1\bar{6}", Fraction(1, 6)), ("0.333...", Fraction(1, 3)),
        (r"0.\overline{45}", Fraction(5, 11)), ("2e5", 200000), (r"1.2 \times 10^{-4}", Fraction(12, 100000)),
        (r"2 \cdot 3^5", 486), ("3!", 6), (r"\binom{5}{2}", 10), (r"\dbinom{5}{2}", 10), (r"\sqrt{16}", 4),
        ("2^{100}", 2**100), ("-2^2", -4), ("(-2)^2", 4), ("4^{1/2}", 2), ("2(3)", 6), (r"\frac{0}{5}", 0),
        ("0." + "9" * 500, Fraction(10**500 - 1, 10**500)),
    ],
)  # fmt: skip
def test_spellings(text, value):
    assert exact(plain(text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,2",
        "12,34",
        r"\sqrt{2}",
        r"\pi",
        "4 10/3",
        "3 4",
        "2^{1/2}x",
        "(1",
        "1)",
        r"\frac{1}{0}",
        "٣",
        "1.2.3",
    ],
)
def test_what_is_no_number(text):
    assert exact(plain(text)) is None


@pytest.mark.parametrize("text", ["10^{10^{10}}", "(10^9)!", r"\binom{10^9}{5}", "100000!", "9" * 3000, "1e99999"])
def test_what_would_take_for_ever(text):
    with pytest.raises(EnormousError):
        exact(plain(text))


@given(st.fractions(max_denominator=10**6))
def test_every_spelling_of_a_fraction_is_read_back(value):
    over, under = value.numerator, value.denominator
    sign, whole, rest = "-" if over < 0 else "", abs(over) // under, abs(over) % under
    spellings = [rf"\frac{{{over}}}{{{under}}}", f"{over}/{under}", rf"{sign}\dfrac{{{abs(over)}}}{{{under}}}"]
    if rest and whole:
        spellings += [rf"{sign}{whole}\frac{{{rest}}}{{{under}}}", f"{sign}{whole} {rest}/{under}"]
    assert {exact(plain(text)) for text in spellings} == {value}
    assert all(is_numeral(plain(text)) for text in spellings)


@given(st.integers(), st.integers(0, 5))
def test_every_whole_number_is_read_back(number, zeros):
    sign = "-" if number < 0 else ""
    assert integer_digits(f"{sign}{'0' * zeros}{abs(number)}") == str(number)
    assert integer_digits(f"{number:,}") == str(number)
    assert exact(f"{number:,}") == number


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from(["+", "-", " + ", "−", r"\div "]))
def test_a_sum_left_undone_is_no_numeral(one, other, operator):
    text = plain(f"{one}{operator}{other}")
    assert leaves_a_sum(text)
    assert not is_numeral(text)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6), st.integers(-20, 20))
def test_a_numeral_leaves_no_sum(number, under, exponent):
    for text in (str(number), f"{number}/{under}", rf"{number} \times 10^{{{exponent}}}", f"{number}e{exponent}"):
        assert not leaves_a_sum(text)
