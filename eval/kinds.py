"""The kinds of question: how the gold is normalized, how an answer is found in a text, how the two are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Literal

from eval.answers import Found, as_integer, extract_choice, extract_math

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
    number = as_integer(gold)
    if number is None:
        raise ValueError(
            f"answer {gold!r} is not a whole number, which every answer of this benchmark is. Correct the copy."
        )
    return number


def _expression(text: str, cue: str, choices: Sequence[str]) -> Found | None:
    expression = extract_math(cue + text)
    return Found(expression, "text") if expression is not None else None


def _letter(text: str, cue: str, choices: Sequence[str]) -> Found | None:
    letter = extract_choice(cue + text, choices)
    return Found(letter, "text") if letter is not None else None


_NO_EXPRESSION = "no closed box, no answer phrase, no bare expression"
# Qwen's recommended wording for mathematics, and its counterpart for choices (Qwen3 model card, best practices).
_BOXED_MATH = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
_BOXED_CHOICE = "\n\nPlease reason step by step, and put only the letter of your choice within \\boxed{}."

KINDS: dict[Kind, QuestionKind] = {
    "math": QuestionKind(_expression, _NO_EXPRESSION, _BOXED_MATH),
    "integer": QuestionKind(_expression, _NO_EXPRESSION, _BOXED_MATH, normalize_gold=_integer),
    "choice": QuestionKind(_letter, "the text picks no single choice", _BOXED_CHOICE, equal=eq),
}
