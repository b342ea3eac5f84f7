r"""An answer's text and the gold become a `Grade`.

Pure, but slow and memory-hungry on hostile input: call it through `eval.grader_pool`, which runs it in child processes
that can be killed. `math_verify` (with sympy behind it) is imported on first use. Only its LaTeX grammar is used: its
plain-text extraction would pass model text to sympy's `parse_expr`, which is Python's `eval`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from eval.equality.notation import plain
from eval.equality.same_value import same_value
from eval.extraction.found import LONGEST_EXPRESSION
from eval.kinds import KINDS, Kind
from eval.spec import nearest

Verdict = Literal["CORRECT", "INCORRECT", "UNPARSED"]

GRADER_FAILURES = frozenset({"timeout", "memory", "crash", "error", "blocked"})
"""Causes on the grader's side. Such an answer is missing data, not a wrong answer (failure-is-not-zero)."""


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


def _same_spelling(gold: str, answer: str) -> bool:
    return "".join(plain(gold).split()) == "".join(plain(answer).split())


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
    "standard": Grader(f"2+math-verify-{version('math-verify')}+sympy-{version('sympy')}", _same_short_value),
    # Equality of the text, as the paper scored AMC23.
    "exact": Grader("2", _same_spelling),
}
