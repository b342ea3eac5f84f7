"""The kinds of question: how the gold is normalized, how an answer is found in a text, how the two are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Literal

from eval.equality.notation import plain
from eval.equality.numerals import integer_digits
from eval.equality.units import quantity
from eval.extraction.choices import find_choice
from eval.extraction.expressions import find_expression, find_whole_number
from eval.extraction.found import Found

Kind = Literal["math", "integer", "choice"]


@dataclass(frozen=True)
class QuestionKind:
    """One kind of question."""

    extract: Callable[[str, str, Sequence[str]], Found | None]
    """(answer text, cue before a forced answer, choices as shown) -> the answer, or None if the text gives none."""
    no_answer: str
    """Why a text gives none, for the cause of the grade."""
    boxed: str
    """What prompt preset "boxed" appends to the question."""
    normalize_gold: Callable[[str], str] = str
    """A data set's spelling of the gold -> the gold as stored. Raises `ValueError` if it cannot be a gold."""
    equal: Callable[[str, str], bool] | None = None
    """Whether (gold, answer) agree; None leaves it to the grader."""


def _integer(gold: str) -> str:
    number = integer_digits(quantity(plain(gold)).value)
    if number is None:
        raise ValueError(
            f"answer {gold!r} is not a whole number, which every answer of this benchmark is. Correct the copy."
        )
    return number


def _expression(text: str, cue: str, choices: Sequence[str]) -> Found | None:
    return find_expression(text, cue)


def _whole_number(text: str, cue: str, choices: Sequence[str]) -> Found | None:
    return find_whole_number(text, cue)


def _letter(text: str, cue: str, choices: Sequence[str]) -> Found | None:
    return find_choice(text, choices, cue)


_NO_EXPRESSION = "no closed box, no answer phrase, no bare expression"
# Qwen's recommended wording for mathematics, and its counterpart for choices (Qwen3 model card, best practices).
_BOXED_MATH = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
_BOXED_CHOICE = "\n\nPlease reason step by step, and put only the letter of your choice within \\boxed{}."

KINDS: dict[Kind, QuestionKind] = {
    "math": QuestionKind(_expression, _NO_EXPRESSION, _BOXED_MATH),
    "integer": QuestionKind(_whole_number, _NO_EXPRESSION, _BOXED_MATH, normalize_gold=_integer),
    "choice": QuestionKind(_letter, "the text picks no single choice", _BOXED_CHOICE, equal=eq),
}
