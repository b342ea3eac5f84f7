r"""An answer's text and the gold become a `Grade`.

Pure, but slow and memory-hungry on hostile input: call it through `eval.grader_pool`, which runs it in child processes
that can be killed. `math_verify` (with sympy behind it) is imported on first use. Only its LaTeX grammar is used: its
plain-text extraction would pass model text to sympy's `parse_expr`, which is Python's `eval`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

from eval.answers import as_integer, without_fonts
from eval.kinds import KINDS, Kind
from eval.spec import nearest

Verdict = Literal["CORRECT", "INCORRECT", "UNPARSED"]

GRADER_FAILURES = frozenset({"timeout", "memory", "crash", "error", "blocked"})
"""Causes on the grader's side. Such an answer is missing data, not a wrong answer (failure-is-not-zero)."""

LONGEST_EXPRESSION = 2000
"""Characters. Longer answers are not parsed: no gold comes near this length."""


@dataclass(frozen=True)
class GradeItem:
    """One answer to grade. `choices` are in the order shown, for kind "choice"."""

    text: str
    gold: str
    kind: Kind = "math"
    choices: tuple[str, ...] = ()
    cue: str = ""
    """What the engine wrote right before a forced answer, such as `Final Answer:`: the model completes it."""


@dataclass(frozen=True)
class Grade:
    """A verdict, what was compared with the gold, and why there is no verdict.

    A cause begins with one word: "no-answer" (the model gave none) or one of `GRADER_FAILURES`.
    """

    verdict: Verdict
    extracted: str | None = None
    cause: str | None = None
    rule: str | None = None
    """Where `extracted` was found, such as "box" or "last line"; None if nothing was."""

    @property
    def grader_failed(self) -> bool:
        """Whether the grader, not the model, is to blame for the missing verdict."""
        return self.cause is not None and self.cause.split(":")[0] in GRADER_FAILURES


def check_grader(name: str) -> None:
    """Raise `ValueError` for an unknown grader, suggesting the nearest name."""
    if name not in GRADERS:
        raise ValueError(f"grader {name!r} is unknown; there are {', '.join(GRADERS)}.{nearest(name, GRADERS)}")


def grader_id(grader: str) -> str:
    """The name under which a grader's verdicts are stored: the grader and its version."""
    return f"{grader}@{GRADERS[grader].version}"


def grade(item: GradeItem, grader: str = "standard") -> Grade:
    """Grade one answer in this process. It may hang or exhaust memory on hostile text; see `eval.grader_pool`."""
    check_grader(grader)
    kind = KINDS[item.kind]
    found = kind.extract(item.text, item.cue, item.choices)
    if found is None:
        return Grade("UNPARSED", None, f"no-answer: {kind.no_answer}")
    equal = kind.equal or GRADERS[grader].equal
    verdict: Verdict = "CORRECT" if equal(item.gold, found.expression) else "INCORRECT"
    return Grade(verdict, found.expression[:LONGEST_EXPRESSION], rule=found.rule)


def same_value(gold: str, answer: str) -> bool:
    """Whether two LaTeX (or plain) expressions denote the same value.

    Three steps decide, in order: equal spelling; whole numbers, and numerals with a base (math-verify ignores the
    base); math-verify.
    """
    if _same_spelling(gold, answer):
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
    """The text without what never carries meaning: math delimiters, fonts, spacing, white space, a final full stop."""
    plain = without_fonts(text).strip().strip("$")
    plain = re.sub(r"\\[,;:!> ]|~|\\q?quad\b|\\(?:left|right|displaystyle)\b|\s", "", plain)
    return plain.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").removesuffix(".")


@lru_cache(maxsize=256)
def _parsed(expression: str) -> Any:
    """Math-verify's parses of one expression. Memoized, since a gold recurs with every draw."""
    from math_verify import LatexExtractionConfig, parse

    latex = expression.replace("\\$", "").replace("$", "").strip()
    latex = re.sub(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", latex)
    if (number := _SCIENTIFIC.fullmatch(latex)) is not None:
        latex = rf"{number[1]} \cdot 10^{{{number[2]}}}"
    # The pool imposes time limits: math-verify's own use SIGALRM, which works in main threads only.
    return parse(f"${latex}$", extraction_config=(LatexExtractionConfig(),), parsing_timeout=None)


def _same_spelling(gold: str, answer: str) -> bool:
    return _spelling(gold) == _spelling(answer)


def _same_short_value(gold: str, answer: str) -> bool:
    return len(answer) <= LONGEST_EXPRESSION and same_value(gold, answer)


@dataclass(frozen=True)
class Grader:
    """A way to compare an extracted expression with the gold."""

    version: str
    """Part of every stored grade: a change of behaviour must change it."""
    equal: Callable[[str, str], bool]
    """Whether (gold, answer) agree."""


GRADERS: dict[str, Grader] = {
    # Mathematical equality.
    "standard": Grader(f"1+math-verify-{version('math-verify')}+sympy-{version('sympy')}", _same_short_value),
    # Equality of the text, as the paper scored AMC23.
    "exact": Grader("1", _same_spelling),
}
