"""Reads from the store what a plan needs: trace lengths and answered cuts, never tokens."""

from array import array
from collections.abc import Mapping, Sequence

from eval.draws import unserved_limits
from eval.grading import grader_id
from orchestrator.plan.plan import StoredContext, StoredState
from orchestrator.plan.resolved_grid import Decoding, ResolvedGrid, ResolvedVariant
from orchestrator.store.store import Store
from workers.messages import GradeTask, Item
from workers.rows.draw_rows import METADATA, MeasuredDraw, measure_rows
from workers.rows.grade_rows import ungraded

DrawName = tuple[str, int]
"""(prompt id, seed) within a context."""


def read_stored(store: Store, resolved: ResolvedGrid) -> StoredState:
    """What `store` has of `resolved`'s patches, draws and grades. A context without a folder costs no read."""
    present = store.contexts("draws")
    contexts: dict[str, StoredContext] = {}
    ungraded_answers: dict[str, int] = {}
    grader = grader_id(resolved.grid.runtime.grader)
    for variant in resolved.variants:
        for decoding in variant.decodings:
            context = decoding.context
            if context.context_id not in present or context.context_id in contexts:
                continue
            contexts[context.context_id] = _stored_context(store, resolved.grid.sampling.seeds, variant, decoding)
            task = GradeTask.of("", context, (question.gold for question in variant.questions))
            ungraded_answers[context.context_id] = len(ungraded(store, task, grader))
    return StoredState(store.patch_ids(), contexts, ungraded_answers)


def _stored_context(store: Store, seeds: Sequence[int], variant: ResolvedVariant, decoding: Decoding) -> StoredContext:
    context = decoding.context
    draws = read_draws(store, context.context_id, context.answer_context_id)
    lengths = array("i", [-1]) * (len(variant.distinct) * len(seeds))
    owed_limits: dict[int, tuple[int, ...]] = {}
    unfinished: set[int] = set()
    number = 0
    for question in variant.distinct:
        for seed in seeds:
            draw = draws.get((question.gold.prompt_id, seed))
            if draw is not None:
                lengths[number] = draw.length
                if owed := unserved_limits(draw.length, draw.ended, draw.cuts, decoding.limits):
                    owed_limits[number] = owed
                    if not draw.ended and draw.length < max(owed):
                        unfinished.add(number)
            number += 1
    return StoredContext(lengths, owed_limits, unfinished)


def read_draws(store: Store, context_id: str, answer_context_id: str) -> Mapping[DrawName, MeasuredDraw]:
    """The stored draws of one context: the length of each trace, and the cuts that have an answer."""
    return measure_rows(store.read("draws", context_id, METADATA).to_pylist(), answer_context_id)


def still_owed(store: Store, context_id: str, answer_context_id: str, items: Sequence[Item]) -> frozenset[int]:
    """The numbers of the `items` that the store does not have in full, to be computed again after a worker was lost."""
    draws = read_draws(store, context_id, answer_context_id)
    owed = set()
    for item in items:
        draw = draws.get((item.prompt_id, item.job.seed))
        if draw is None or unserved_limits(draw.length, draw.ended, draw.cuts, item.job.limits):
            owed.add(item.number)
    return frozenset(owed)
