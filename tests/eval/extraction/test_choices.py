"""Which letter a text picks among the choices shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.extraction.choices import choice_letter, find_choice
from tests.support.answer_cases import CHOICE_CASES, CHOICES


@pytest.mark.parametrize(("text", "letter"), CHOICE_CASES)
def test_phrasings(text, letter):
    found = find_choice(text, CHOICES)
    assert (found.expression if found else None) == letter


@pytest.mark.parametrize(
    ("text", "letter", "rule"),
    [
        (" C) 15 m/s\n\nThe other options: A) too small.", "C", "cue"),
        (" The correct answer is C.\nA is wrong", "C", "cue"),
        (" 15 m/s", "C", "cue"),
        (" \\boxed{C}", "C", "cue"),
        (" I cannot tell.\n\nStill, the answer is B.", "B", "answer"),
    ],
)
def test_what_completes_a_cue_is_tried_first(text, letter, rule):
    assert find_choice(text, CHOICES, "Final Answer:") == (letter, rule)


def test_a_box_without_a_letter_does_not_end_the_search():
    assert find_choice("The value is \\boxed{15}. So the answer is (C).", CHOICES) == ("C", "answer")
    assert find_choice("\\boxed{15 m/s}", CHOICES) == ("C", "box")
    assert find_choice("\\boxed{A} or \\boxed{C}", CHOICES) is None


def test_a_list_of_the_choices_picks_none():
    listed = "\n".join(f"{choice_letter(index)}) {choice}" for index, choice in enumerate(CHOICES))
    assert find_choice(listed, CHOICES) is None
    assert find_choice(f"{listed}\n\nC", CHOICES) == ("C", "last line")


PHRASES = [
    "The answer is {}.",
    "Answer: {}",
    "\\boxed{{{}}}",
    "({})",
    "Final answer: **{}**",
    '{{"answer": "{}"}}',
    "I choose {}.",
]


@given(st.sampled_from(PHRASES), st.integers(0, 9), st.sampled_from(["", "A, B and C are close. ", "Let us see.\n\n"]))
def test_each_letter_of_ten_is_found_in_each_phrase(phrase, index, before):
    choices = tuple(f"value {number}" for number in range(10))
    found = find_choice(before + phrase.format(choice_letter(index)), choices)
    assert found is not None
    assert found.expression == choice_letter(index)
