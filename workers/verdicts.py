"""The grade rows of a context as verdicts: which one stands where a grader has tried more than once. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from eval.grading import Grade

GradeKey = tuple[str, int, int, str]
"""(prompt id, seed, cut, gold id) within a context and answer context."""


def verdicts(rows: Iterable[Mapping[str, Any]], answer_context_id: str, grader: str) -> dict[GradeKey, Grade]:
    """What `grader` says of each answer. A later try that came to a verdict stands before one on which it failed."""
    found: dict[GradeKey, Grade] = {}
    for row in rows:
        if row["grader"] == grader and row["answer_context_id"] == answer_context_id:
            name = (row["prompt_id"], row["seed"], row["cut"], row["gold_id"])
            if name not in found or found[name].grader_failed:
                found[name] = Grade(row["verdict"], row["extracted"] or None, row["cause"] or None)
    return found
