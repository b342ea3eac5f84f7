"""Reads from the store what a plan needs to know. Rows of one draw are merged: a trace may come in several."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eval.draws import PriorTrace, owed_limits
from orchestrator.plan import DrawName, Held, Holdings
from orchestrator.store import Store
from orchestrator.survey import Survey
from workers.grade_worker import grader_id, ungraded
from workers.messages import DrawKey, GradeTask, Shard

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


def read_holdings(store: Store, survey: Survey) -> Holdings:
    """What `store` holds of `survey`'s patches, draws and grades. Contexts without a folder cost nothing."""
    present = store.contexts("draws")
    draws: dict[str, Mapping[DrawName, Held]] = {}
    lacking: dict[str, int] = {}
    grader = grader_id(survey.grid.runtime.grader)
    for variant in survey.variants:
        for decoding in variant.decodings:
            context = decoding.context
            if context.context_id not in present or context.context_id in draws:
                continue
            draws[context.context_id] = read_draws(store, context.context_id, context.answer_context_id)
            golds = tuple(question.gold for question in variant.questions)
            task = GradeTask("", context.context_id, context.answer_context_id, golds)
            lacking[context.context_id] = len(ungraded(store, task, grader))
    return Holdings(store.patch_ids(), draws, lacking)


def read_draws(store: Store, context_id: str, answer_context_id: str) -> dict[DrawName, Held]:
    """The draws of one context, whole: traces joined in order, and the cuts that have an answer."""
    rows = store.read("draws", context_id, COLUMNS).to_pylist()
    return {
        name: Held(draw.trace, frozenset(draw.answers)) for name, draw in join_rows(rows, answer_context_id).items()
    }


def still_owed(store: Store, shard: Shard) -> frozenset[DrawKey]:
    """Which draws of a shard the store does not fully hold: those that must be made again after a worker was lost."""
    context = shard.context
    held = read_draws(store, context.context_id, context.answer_context_id)
    missing = set()
    for item in shard.items:
        have = held.get((item.prompt_id, item.job.seed))
        if have is None or owed_limits(have.trace, have.cuts, item.job.limits):
            missing.add((context.context_id, item.prompt_id, item.job.seed))
    return frozenset(missing)


@dataclass(frozen=True)
class Joined:
    """One draw as its rows tell it."""

    trace: PriorTrace
    answers: Mapping[int, Mapping[str, Any]]
    """Cut -> the answer's fields."""
    created_at: float
    """When the last of it was committed, in seconds since the epoch."""


def join_rows(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[DrawName, Joined]:
    """Join the rows of each draw of one context.

    A row counts if it begins where the rows before it end. Any other row is a repetition (a worker outlived the driver
    that gave up on it, say): the first committed one stands, trace and answers together.
    """
    by_draw: dict[DrawName, list[Mapping[str, Any]]] = {}
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
