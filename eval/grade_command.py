"""`python -m eval grade CASES.jsonl`: what a grader makes of answers, without a model, an engine or a store.

A case is a JSON object per line with `text` and `gold`, and optionally `kind` ("math" if left out), `choices` in the
order shown (kind "choice"), `cue` (what the engine wrote before a forced answer) and `right`, the verdict that a person
came to. Other keys are ignored.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from eval.extraction.choices import choice_letter
from eval.grader_pool import GraderPool
from eval.grading import GRADERS, Grade, GradeItem, Verdict, check_grader
from eval.kinds import KINDS
from eval.spec import nearest

COMPLETE, BAD_INPUT, INCOMPLETE = 0, 2, 3
STANDARD_INPUT = "-"
RIGHT = (*get_args(Verdict), "NOT_CORRECT")
"""What `right` may be; NOT_CORRECT is any verdict but CORRECT."""


class CaseError(ValueError):
    """The file of cases cannot be graded. The message names the line, the rule and the remedy."""


@dataclass(frozen=True)
class Case:
    """One line."""

    item: GradeItem
    right: str | None = None

    def agrees(self, verdict: Verdict) -> bool | None:
        """Whether `right` says the same; None without it."""
        if self.right is None:
            return None
        return verdict != "CORRECT" if self.right == "NOT_CORRECT" else verdict == self.right


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit status: 0, 2 for bad input, 3 if grading failed on an answer (not: if it is
    wrong)."""
    options = _parser().parse_args(arguments)
    try:
        check_grader(options.grader)
        cases = read_cases(options.cases)
        began = time.monotonic()
        pool = GraderPool(options.processes, options.seconds)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    with pool:
        grades = pool.grade_many([case.item for case in cases], options.grader)
    seconds = time.monotonic() - began
    lines = [as_json(grades, seconds)] if options.json else as_text(cases, grades, seconds)
    for line in lines:
        print(line)
    return INCOMPLETE if any(grade.grader_failed for grade in grades) else COMPLETE


def read_cases(path: str) -> list[Case]:
    """The cases of a file, or of standard input for `-`. Raises CaseError for a line that is no case."""
    name = "standard input" if path == STANDARD_INPUT else path
    try:
        if path == STANDARD_INPUT:
            content = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                content = file.read()
        lines = content.decode().split("\n")
    except OSError as error:
        raise CaseError(f"{name}: cannot be read: {error.strerror}; name a file of JSON lines, or - to pipe") from None
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise CaseError(f"{name}:{number}: this is not UTF-8; save the file as UTF-8") from None
    cases = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                cases.append(read_case(line))
            except ValueError as error:
                raise CaseError(f"{name}:{number}: {error}") from None
    if not cases:
        raise CaseError(f'{name}: there is no case; write one per line, such as {{"text": "It is 4.", "gold": "4"}}')
    return cases


def read_case(line: str) -> Case:
    """One case. Raises ValueError with the rule that the line breaks, and the remedy."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ValueError(f"this is not JSON ({error}); a case is one JSON object on one line") from None
    if not isinstance(value, dict):
        raise ValueError(f"a case is a JSON object, not {line.strip()[:40]}; give it text and gold")
    kind = _text(value, "kind", "math")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; the kinds are {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    choices = value.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError("choices must be a list of texts, in the order shown; quote every one")
    gold = KINDS[kind].normalize_gold(_text(value, "gold"))
    letters = [choice_letter(index) for index in range(len(choices))]
    if kind == "choice" and gold not in letters:
        known = f"which are {', '.join(letters)}" if letters else "of which the case has none"
        raise ValueError(f"gold {gold!r} is not the letter of one of its choices, {known}; correct gold or choices")
    right = _text(value, "right", None)
    if right is not None and right not in RIGHT:
        raise ValueError(f"right {right!r} is no verdict; it may be {', '.join(RIGHT)}, or be left out")
    return Case(GradeItem(_text(value, "text"), gold, kind, tuple(choices), _text(value, "cue", "")), right)


def _text(value: Mapping[str, Any], key: str, *default: Any) -> Any:
    """The text under `key`, or the default if there is one. Raises ValueError if it is missing or no text."""
    if value.get(key) is None and default:
        return default[0]
    if key not in value:
        raise ValueError(f"the case has no {key}; add {key!r}, a text")
    if not isinstance(value[key], str):
        raise ValueError(f"{key} must be a text, not {json.dumps(value[key])[:40]}; put it in quotes")
    return value[key]


def as_json(grades: Iterable[Grade], seconds: float) -> str:
    """One object: the grades in the order of the cases, and how long grading took, its processes' start included."""
    return json.dumps({"cases": [asdict(grade) for grade in grades], "seconds": round(seconds, 3)})


def as_text(cases: Sequence[Case], grades: Sequence[Grade], seconds: float) -> Iterator[str]:
    """A line per case, and a summary."""
    agreements = [case.agrees(grade.verdict) for case, grade in zip(cases, grades, strict=True)]
    for number, (case, grade, agrees) in enumerate(zip(cases, grades, agreements, strict=True), 1):
        yield f"{number:4}  {grade.spelled()}{f'  <- right: {case.right}' if agrees is False else ''}"
    verdicts = Counter(grade.verdict for grade in grades)
    said = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in get_args(Verdict))
    yield f"{len(grades)} case{'s' * (len(grades) > 1)} in {seconds:.1f} s: {said}"
    if defeats := sum(grade.defeated_grader for grade in grades):
        yield f"{defeats} of the incorrect stop the grader"
    if failed := sum(grade.grader_failed for grade in grades):
        yield f"{failed} of the unparsed because grading failed: missing, not wrong"
    if known := [agrees for agrees in agreements if agrees is not None]:
        yield f"{sum(known)} of {len(known)} as `right` says"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval grade", description="Grade answers that you have as text.")
    parser.add_argument("cases", metavar="CASES.jsonl", help="a case per line: text, gold, kind, choices; - to pipe")
    parser.add_argument("--grader", default=next(iter(GRADERS)), help=f"{', '.join(GRADERS)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="processor time per answer; 10 if left out")
    parser.add_argument("--processes", type=int, default=2, help="grader processes; 2 if left out")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser
