"""Reads from the store what a plan needs to know."""

from collections.abc import Mapping

from eval.draws import owed_limits
from orchestrator.plan import DrawName, Held, Holdings
from orchestrator.store import Store
from orchestrator.survey import Survey
from workers.grade_worker import grader_id, ungraded
from workers.joining import COLUMNS, join_rows
from workers.messages import DrawKey, GradeTask, Shard


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
