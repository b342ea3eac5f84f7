"""What is read out of a text before anything is compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.answers import Box, as_integer, extract_choice, extract_math, last_box
from tests.support.answer_cases import CHOICE_CASES, CHOICES


@pytest.mark.parametrize(("text", "letter"), CHOICE_CASES)
def test_choice_phrasings(text, letter):
    assert extract_choice(text, CHOICES) == letter


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("no box", None),
        (r"\boxed{1} \boxed{2}", Box("2", True)),
        (r"\boxed{\frac{a}{\sqrt{b}}} .", Box(r"\frac{a}{\sqrt{b}}", True)),
        (r"\boxed{\left\{ 1 \right\}}", Box(r"\left\{ 1 \right\}", True)),
        (r"\boxed{1} \boxed{2", Box("1", True)),
        (r"\boxed{2", Box("2", False)),
        (r"\boxed {3}", Box("3", True)),
        (r"\boxed 4", Box("4", True)),
        (r"\boxed{\boxed{5}}", Box("5", True)),
        (r"\boxed", None),
        ("\\boxed{6\\", Box("6\\", False)),
    ],
)
def test_last_box(text, box):
    assert last_box(text) == box


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("025", "25"), ("000", "0"), ("-0", "0"), ("27.0", "27"), ("27.", "27"), ("27.5", None), ("1,234", "1234"),
        ("1{,}234", "1234"), ("12,34", None), ("1,2", None), (r"\text{7}", "7"), (r"$-7$", "-7"), (r"336^\circ", "336"),
        (r"336^{\circ}", "336"), ("90°", "90"), ("+5", "5"), ("−5", "-5"), ("5 6", "56"), ("x", None), ("", None),
        ("٣", None), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_whole_numbers(text, digits):
    assert as_integer(text) == digits


@given(st.integers(), st.integers(0, 5))
def test_every_whole_number_is_read_back(number, zeros):
    sign = "-" if number < 0 else ""
    assert as_integer(f"{sign}{'0' * zeros}{abs(number)}") == str(number)
    assert as_integer(f"{number:,}") == str(number)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("Answer: 3\n\nFinal Answer: 4", "4"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("The answer is $x = 3$, as shown.", "x = 3"),
        ("We find\n$$\\frac{1}{2}$$", "\\frac{1}{2}"),
        ("Clearly the value exceeds everything we know", None),
        ("**\\frac{1}{2}**", "\\frac{1}{2}"),
        ("\\boxed{}", None),
        ("Answer: 3\n\\boxed{4", None),
    ],
)
def test_fall_backs(text, expression):
    assert extract_math(text) == expression


@given(st.text(max_size=300))
def test_extraction_takes_any_text(text):
    extract_math(text)
    extract_choice(text, CHOICES)
    as_integer(text)
