r"""Answer text and gold become a ``Grade``. Pure, but slow and memory-hungry on hostile input: call it
through ``eval.grader_pool``, which runs it in children that can be killed.

``math_verify`` (and sympy behind it) is imported on first use. Only its LaTeX grammar is used: the plain-text
extraction would hand model text to sympy's ``parse_expr``, which is Python's ``eval``.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

from eval.answers import as_integer, extract_choice, extract_math, undressed
from eval.spec import nearest

Verdict = Literal["CORRECT", "INCORRECT", "UNPARSED"]
Kind = Literal["math", "integer", "choice"]

# Name -> version. The version is part of every grade, so a change of behaviour must change it.
GRADERS: dict[str, str] = {
    # Boxes and phrasings, then mathematical equality.
    "standard": f"1+math-verify-{version('math-verify')}+sympy-{version('sympy')}",
    # Boxes and phrasings, then equality of the text, as the paper scored AMC23.
    "exact": "1",
}

# What went wrong on the grader's side. Such an answer is missing data, not a wrong one (failure-is-not-zero).
GRADER_FAILURES = frozenset({"timeout", "memory", "crash", "error", "blocked"})
# What the model failed to give. Such an answer counts as not correct.
NO_ANSWER_CAUSES = frozenset({"no-answer"})
LONGEST_EXPRESSION = 2000


@dataclass(frozen=True)
class GradeItem:
    """One answer to grade. ``choices`` in the order shown, for kind "choice"."""

    text: str
    gold: str
    kind: Kind = "math"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grade:
    """``extracted`` is what was compared with the gold; ``cause`` says why there is no verdict.

    A cause begins with one word: "no-answer" (the model gave none), or one of ``GRADER_FAILURES``.
    """

    verdict: Verdict
    extracted: str | None = None
    cause: str | None = None

    @property
    def grader_failed(self) -> bool:
        """True where the grader, not the model, is to blame for the missing verdict."""
        return self.cause is not None and self.cause.split(":")[0] in GRADER_FAILURES


def check_grader(name: str) -> None:
    """Raise ``ValueError`` for an unknown grader, naming the nearest."""
    if name not in GRADERS:
        raise ValueError(f"grader {name!r} is unknown; there are {', '.join(GRADERS)}.{nearest(name, GRADERS)}")


def grade(item: GradeItem, grader: str = "standard") -> Grade:
    """Grade one answer in this process. May hang or exhaust memory on hostile text; see
    ``eval.grader_pool``.
    """
    check_grader(grader)
    if item.kind == "choice":
        extracted = extract_choice(item.text, item.choices)
        if extracted is None:
            return Grade("UNPARSED", None, "no-answer: the text picks no single choice")
        return _verdict(extracted == item.gold, extracted)
    extracted = extract_math(item.text)
    if extracted is None:
        return Grade("UNPARSED", None, "no-answer: no closed box, no answer phrase, no bare expression")
    if grader == "exact":
        return _verdict(_spelling(extracted) == _spelling(item.gold), extracted)
    if len(extracted) > LONGEST_EXPRESSION:
        return _verdict(False, extracted)  # no gold is a hundredth as long
    return _verdict(same_value(item.gold, extracted), extracted)


def _verdict(correct: bool, extracted: str) -> Grade:
    return Grade("CORRECT" if correct else "INCORRECT", extracted[:LONGEST_EXPRESSION])


def same_value(gold: str, answer: str) -> bool:
    """Whether two LaTeX (or plain) expressions denote the same value.

    In order: the spelling; whole numbers and numerals with a base, where math-verify would look away from
    leading zeros' length and from the base; math-verify.
    """
    if _spelling(gold) == _spelling(answer):
        return True
    whole_gold, whole_answer = as_integer(gold), as_integer(answer)
    if whole_gold is not None and whole_answer is not None:
        return whole_gold == whole_answer
    if _BASED.fullmatch(_spelling(gold)) and _BASED.fullmatch(_spelling(answer)):
        return _spelling(gold).translate(_NO_BRACES) == _spelling(answer).translate(_NO_BRACES)
    from math_verify import verify

    return bool(verify(_parsed(gold), _parsed(answer), timeout_seconds=None))


_BASED = re.compile(r"[0-9A-Z]+_(?:[0-9]+|\{[0-9]+\})")
_NO_BRACES = str.maketrans("", "", "{}")
_SCIENTIFIC = re.compile(r"([-+]?[0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]+)")


def _spelling(text: str) -> str:
    """The text without what never carries meaning: math delimiters, fonts, spacing, white space, a full
    stop.
    """
    plain = undressed(text).strip().strip("$")
    plain = re.sub(r"\\[,;:!> ]|~|\\q?quad\b|\\(?:left|right|displaystyle)\b|\s", "", plain)
    return plain.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").removesuffix(".")


@lru_cache(maxsize=256)
def _parsed(expression: str) -> Any:
    """Math-verify's parses of one isolated expression. Cached, since a gold recurs with every draw."""
    from math_verify import LatexExtractionConfig, parse

    latex = expression.replace("\\$", "").replace("$", "").strip()
    latex = re.sub(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", latex)
    if (number := _SCIENTIFIC.fullmatch(latex)) is not None:
        latex = rf"{number[1]} \cdot 10^{{{number[2]}}}"
    # Time limits are the pool's: math-verify's own rest on SIGALRM, which works in main threads only.
    return parse(f"${latex}$", extraction_config=(LatexExtractionConfig(),), parsing_timeout=None)


def grader_id(grader: str) -> str:
    """The name under which a grader's verdicts are stored: the grader and its version."""
    return f"{grader}@{GRADERS[grader]}"
