"""Reads from the store what a plan needs: how long traces are and which cuts are answered, never their tokens."""

from array import array
from collections.abc import Mapping, Sequence

from eval.draws import unserved_limits
from eval.grading import grader_id
from orchestrator.plan.plan import StoredContext, StoredState
from orchestrator.plan.resolve import Decoding, ResolvedGrid, ResolvedVariant
from orchestrator.store.store import Store
from workers.draw_rows import METADATA, MeasuredDraw, measure_rows
from workers.grade_rows import ungraded
from workers.messages import GradeTask, Item

DrawName = tuple[str, int]
"""(prompt id, seed) within a context."""


def read_stored(store: Store, resolved: ResolvedGrid) -> StoredState:
    """What `store` holds of `resolved`'s patches, draws and grades. Contexts without a folder cost nothing."""
    present = store.contexts("draws")
    contexts: dict[str, StoredContext] = {}
    lacking: dict[str, int] = {}
    grader = grader_id(resolved.grid.runtime.grader)
    for variant in resolved.variants:
        for decoding in variant.decodings:
            context = decoding.context
            if context.context_id not in present or context.context_id in contexts:
                continue
            contexts[context.context_id] = _held(store, resolved.grid.sampling.seeds, variant, decoding)
            golds = tuple(question.gold for question in variant.questions)
            task = GradeTask("", context.context_id, context.answer_context_id, golds)
            lacking[context.context_id] = len(ungraded(store, task, grader))
    return StoredState(store.patch_ids(), contexts, lacking)


def _held(store: Store, seeds: Sequence[int], variant: ResolvedVariant, decoding: Decoding) -> StoredContext:
    context = decoding.context
    draws = read_draws(store, context.context_id, context.answer_context_id)
    lengths = array("i", [-1]) * (len(variant.distinct) * len(seeds))
    owed_limits: dict[int, tuple[int, ...]] = {}
    unfinished: set[int] = set()
    number = 0
    for question in variant.distinct:
        for seed in seeds:
            have = draws.get((question.gold.prompt_id, seed))
            if have is not None:
                lengths[number] = have.length
                if owed := unserved_limits(have.length, have.ended, have.cuts, decoding.limits):
                    owed_limits[number] = owed
                    if not have.ended and have.length < max(owed):
                        unfinished.add(number)
            number += 1
    return StoredContext(lengths, owed_limits, unfinished)


def read_draws(store: Store, context_id: str, answer_context_id: str) -> Mapping[DrawName, MeasuredDraw]:
    """The draws of one context: how long their traces are, and the cuts that have an answer."""
    return measure_rows(store.read("draws", context_id, METADATA).to_pylist(), answer_context_id)


def still_owed(store: Store, context_id: str, answer_context_id: str, items: Sequence[Item]) -> frozenset[int]:
    """Which of `items` the store does not fully hold, by number: what must be made again after a worker was lost."""
    held = read_draws(store, context_id, answer_context_id)
    missing = set()
    for item in items:
        have = held.get((item.prompt_id, item.job.seed))
        if have is None or unserved_limits(have.length, have.ended, have.cuts, item.job.limits):
            missing.add(item.number)
    return frozenset(missing)
