"""Whether two answers are the same. Trusted expressions only: for hostile text see tests/eval/test_grading.py."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.equality.same_value import same_value, value_key

SAME = [
    # shapes
    (r"1,2,3", "3, 2, 1"), (r"\{1,2\}", "1,2"), (r"\pm 2", "-2, 2"), (r"2\pm\sqrt3", r"2-\sqrt3,2+\sqrt3"),
    (r"x = \frac{-1 \pm \sqrt{13}}{4}", r"\frac{-1+\sqrt{13}}{4}, \frac{-1-\sqrt{13}}{4}"),
    ("(1,2)", r"\left(1,\,2\right)"), ("(1,2)", r"\langle 1, 2\rangle"), ("(1,2)", "x=1, y=2"),
    ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"), ("[-2,7]", r"-2 \le x \le 7"), ("[-2,7]", r"\{x \mid -2 \le x \le 7\}"),
    (r"\{x : x > 2\}", "x>2"), ("x>2", r"\{x : x > 2\}"), (r"(-\infty,1)\cup(1,\infty)", r"x \neq 1"),
    (r"[0,2] \setminus \{1\}", r"[0,1)\cup(1,2]"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
    # relations
    ("5", "x = 5"), ("x = 5", "5"), ("39", "36 + 3 = 39 eggs"), ("204", "m + n = 3 + 201 = 204"), ("|AB|=1", "1"),
    ("y=2x+3", "2x - y + 3 = 0"), ("x<3", "3 > x"), (r"\frac{\sqrt3}{3}", r"\frac{\sqrt{3}}{3} \approx 0.577"),
    # values
    (r"101_2", r"101_{\text{two}}"), ("i", r"\sqrt{-1}"), (r"\frac{9}{4}", "2 1/4"), ("50\\%", "0.5"),
    ("0.5", "50\\%"), ("10", "10 percent"), ("12", r"12 \text{ square units}"), ("1000.99", "1,000.99m²"),
    ("18.90", r"\$18.9"), (r"\text{6:00 PM}", r"6:00 \text{ p.m.}"), ("10:30", r"10:30\text{ a.m.}"),
    (r"\text{ellipse}", r"\text{an ellipse}"), ("5", r"\text{The answer is } 5"), ("5", r"5 \text{ (since } 2+3=5)"),
    ("27", r"\textbf{(E) } 27"), ("5", r"\color{red}5"), (r"2\sqrt{3}", "2√3"), (r"\emptyset", r"\varnothing"),
    (r"e^{16}-1", "-1 + exp(16)"), ("9\\pi", "9π cm²"),
]  # fmt: skip
DIFFERENT = [
    ("5", "47 - 42"), ("147", "56 + 91"), ("7", "84 ÷ 12"), ("5", "2 + 3 = 4"), ("5", "x + y = 5"), ("x+z=1", "1"),
    ("(1,2)", r"\{1,2\}"), ("1,2,3", "(1,2,3)"), ("(1,2)", "[1,2]"), ("[0,1)", "(0,1)"), ("3", "1, 2, 3"),
    ("7", "5 or 7"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), ("0.1", "0.1000001"), (r"\sqrt{2}", "1.41421356"), ("3.14", r"\pi"),
    (r"\frac{\sqrt2}{10^9}", r"\frac{2\sqrt2}{10^9}"), (r"\frac{1}{3}", "0.3333333333"), ("204_5", "204"),
    ("204_5", "204_{10}"), (r"12\text{ inches}", r"12\text{ feet}"), ("18.90", r"1890\text{ cents}"),
    ("5", r"5 \text{ apples and } 3 \text{ pears}"), ("0.05", "50\\%"), ("10", "4 10/3"), ("5", r"5\phantom{0}"),
    ("f(x)", "f(y)"), (r"\text{even}", r"\text{an even function}"), ("(x+1)^2", "(x+1)^{1000}"),
    ("5", "10^{10^{10}}"), ("3x-y+13=0", "3x+4y+14=0"), ("12:00", "1:00"), ("7:32", "32:7"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same(gold, answer):
    assert same_value(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different(gold, answer):
    assert not same_value(gold, answer)


@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_numbers_are_equal_exactly_if_their_values_are(one, other):
    left = rf"\frac{{{one.numerator}}}{{{one.denominator}}}"
    assert same_value(left, f"{other.numerator}/{other.denominator}") is (one == other)
    assert (value_key(left) == value_key(f"{other.numerator}/{other.denominator}")) is (one == other)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=5), st.randoms())
def test_order_matters_in_tuples_only(items, random):
    shuffled = random.sample(items, len(items))
    text, other = (", ".join(map(str, each)) for each in (items, shuffled))
    assert same_value(text, other)
    assert same_value(rf"\{{{text}\}}", other)
    assert same_value(f"({text})", f"({other})") is (items == shuffled)


@pytest.mark.parametrize(("one", "other"), [("0.25", r"\frac14"), ("1,000", "1000"), (r"\dfrac{x}{2}", r"\frac{x}{2}")])
def test_equal_answers_share_a_key(one, other):
    assert value_key(one) == value_key(other)
    assert value_key(one) != value_key(one + "+1")
    assert value_key("10^{10^{10}}") != str(Fraction(5))
