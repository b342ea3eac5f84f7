r"""An answer's text and the gold become a `Grade`.

Pure, but slow and memory-hungry on hostile input: call it through `eval.grader_pool`, which runs it in child processes
that can be killed. `math_verify` (with sympy behind it) is imported on first use. Only its LaTeX grammar is used: its
plain-text extraction would pass model text to sympy's `parse_expr`, which is Python's `eval`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal

from eval.equality.notation import plain
from eval.equality.same_value import same_value
from eval.equality.unfinished import repeats_the_task
from eval.extraction.found import LONGEST_EXPRESSION, Found
from eval.kinds import KINDS, Kind
from eval.spec import nearest

Verdict = Literal["CORRECT", "INCORRECT", "UNPARSED"]

TEXT_FAILURES = frozenset({"timeout", "memory", "crash", "error", "blocked"})
"""Causes that can lie in the answer's text: what it does to one grading process it does to every other."""
OUR_FAILURES = frozenset({"killed", "stalled", "machine"})
"""Causes that lie on our side: killed from outside, starved of processor time, a file or a library out of reach."""
GRADER_FAILURES = TEXT_FAILURES | OUR_FAILURES
ENOUGH_FAILURES = 2
"""How often an answer is tried. What fails twice on one side, the text's or ours, is settled."""


LONGEST_SHOWN = 80


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
    """A verdict, what was compared with the gold, and a cause where nothing could be compared.

    A cause begins with one word: "no-answer" (the model gave none) or one of `GRADER_FAILURES`.
    """

    verdict: Verdict
    extracted: str | None = None
    cause: str | None = None
    rule: str | None = None
    """Where `extracted` was found, such as "box" or "last line"; None if nothing was."""

    @property
    def grader_failed(self) -> bool:
        """Whether there is no verdict because grading failed. Such an answer is missing data, never a wrong one
        (failure-is-not-zero)."""
        return self.verdict == "UNPARSED" and self._fault in GRADER_FAILURES

    @property
    def text_failed(self) -> bool:
        """Whether there is no verdict, for a cause that can lie in the text."""
        return self.verdict == "UNPARSED" and self._fault in TEXT_FAILURES

    @property
    def defeated_grader(self) -> bool:
        """Whether the answer counts as wrong because its text stopped the grader again and again: see `settle`."""
        return self.verdict == "INCORRECT" and self._fault in TEXT_FAILURES

    def spelled(self) -> str:
        """In one line for a person: `INCORRECT 3.5 (last line)`, with the cause if there is one."""
        visible = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in self.extracted or "")
        line = "".join(visible)
        short = line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 3]}..."
        notes = (f"({self.rule})" if self.rule else "", f"[{self.cause}]" if self.cause else "")
        return " ".join(filter(None, (self.verdict, short, *notes)))

    @property
    def _fault(self) -> str:
        return (self.cause or "").split(":")[0]


def settle(tries: Sequence[Grade]) -> Grade | None:
    """What comes of the tries so far to grade one answer, each in a fresh process; None if another is needed.

    A verdict settles it. So does the text that stops a grader twice: it would stop every grader, on every machine, so
    it is an answer that nobody can read as the gold, and INCORRECT with its cause. To leave it out would select: loops
    and power towers are what a spoilt model writes. What fails twice on our side is missing data.
    """
    last = tries[-1]
    if not last.grader_failed:
        return last
    by_text = [grade for grade in tries if grade.text_failed]
    if len(by_text) >= ENOUGH_FAILURES:
        return replace(by_text[-1], verdict="INCORRECT")
    if len(tries) - len(by_text) >= ENOUGH_FAILURES:
        return next(grade for grade in reversed(tries) if not grade.text_failed)
    return None


def check_grader(name: str) -> None:
    """Raise `ValueError` for an unknown grader, suggesting the nearest name."""
    if name not in GRADERS:
        raise ValueError(f"grader {name!r} is unknown; there are {', '.join(GRADERS)}.{nearest(name, GRADERS)}")


def grader_id(grader: str) -> str:
    """The name under which a grader's verdicts are stored: the grader and its version."""
    return f"{grader}@{GRADERS[grader].version}"


def newest_before(grader: str, stored: Iterable[str]) -> str | None:
    """The newest version of a grader before `grader` among `stored` (both as from `grader_id`), or None."""
    name = grader.split("@")[0]
    older = [one for one in stored if one.split("@")[0] == name and _release(one) < _release(grader)]
    return max(older, key=_release, default=None)


def _release(grader: str) -> tuple[tuple[int, str], ...]:
    """A version as values that sort as versions do: 1.9 before 1.14."""
    parts: list[str] = re.findall(r"[0-9]+|[^0-9]+", grader)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def grade(item: GradeItem, grader: str = "standard") -> Grade:
    """Grade one answer in this process. It may hang or exhaust memory on hostile text; see `eval.grader_pool`."""
    check_grader(grader)
    return judge(item, find(item), grader)


def find(item: GradeItem) -> Found | None:
    """The first half of `grade`: what the text gives as its answer, or None if it gives none."""
    return KINDS[item.kind].extract(item.text, item.cue, item.choices)


def judge(item: GradeItem, found: Found | None, grader: str) -> Grade:
    """The second half of `grade`: whether what was found is the gold."""
    kind = KINDS[item.kind]
    if found is None:
        return Grade("UNPARSED", None, f"no-answer: {kind.no_answer}")
    equal = kind.equal or GRADERS[grader].equal
    # What a box holds was meant as the answer. Elsewhere, a calculation is as likely the question again.
    unfinished = "box" not in found.rule and repeats_the_task(item.gold, found.expression)
    verdict: Verdict = "CORRECT" if not unfinished and equal(item.gold, found.expression) else "INCORRECT"
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
    "standard": Grader(f"3+math-verify-{version('math-verify')}+sympy-{version('sympy')}", _same_short_value),
    # Equality of the text, as the paper scored AMC23.
    "exact": Grader("2", _same_spelling),
}
