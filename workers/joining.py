"""The rows of a draw, joined: a trace may come in several, and a row may be there twice. Pure.

Whoever reads draws (plan, grading, results, export) reads them through here, so that all see the same trace with
the same answers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eval.draws import PriorTrace

COLUMNS = [
    "answer_context_id",
    "prompt_id",
    "seed",
    "start",
    "limit",
    "trace_ids",
    "ended",
    "waits",
    "answers",
    "created_at",
]
"""The columns that joining needs."""


@dataclass(frozen=True)
class Joined:
    """One draw as its rows tell it."""

    trace: PriorTrace
    answers: Mapping[int, Mapping[str, Any]]
    """Cut -> the answer's fields."""
    created_at: float
    """When the last of it was committed, in seconds since the epoch."""


def join_rows(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int], Joined]:
    """Join the rows of each draw of one context.

    A row counts if it begins where the rows before it end. Any other row is a repetition (a worker outlived the driver
    that gave up on it, say): the first committed one stands, trace and answers together.
    """
    by_draw: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_draw.setdefault((row["prompt_id"], row["seed"]), []).append(row)
    return {name: _join(group, answer_context_id) for name, group in by_draw.items()}


def _join(rows: list[Mapping[str, Any]], answer_context_id: str) -> Joined:
    trace: list[int] = []
    answers: dict[int, Mapping[str, Any]] = {}
    ended, limit, waits, created_at = False, 0, 0, 0.0
    for row in sorted(rows, key=lambda row: (row["start"], row["created_at"])):
        if row["start"] != len(trace) or (ended and row["trace_ids"]):
            continue
        trace += row["trace_ids"]
        ended, limit, waits = ended or row["ended"], max(limit, row["limit"]), max(waits, row["waits"])
        if row["answer_context_id"] == answer_context_id:
            created_at = max(created_at, row["created_at"])
            for answer in row["answers"]:
                answers.setdefault(answer["cut"], answer)
    return Joined(PriorTrace(tuple(trace), ended, limit, waits), answers, created_at)
