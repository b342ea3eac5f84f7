"""What a sweep owes: its survey minus what the store holds. Pure; promise plan-is-honest: `sweep` runs this very value.

Owed is decided answer by answer. A draw whose trace is stored owes only the answers at cuts that nobody asked for yet,
or the extension of its trace; a limit above a trace's natural end owes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from eval.draws import DrawJob, PriorTrace, owed_limits
from orchestrator.survey import Limits, PlannedVariant, Survey
from workers.messages import Item

DrawName = tuple[str, int]
"""(prompt id, seed) within a context."""


@dataclass(frozen=True)
class Held:
    """What the store holds of one draw."""

    trace: PriorTrace
    cuts: frozenset[int]


@dataclass(frozen=True)
class Holdings:
    """What the store holds, as far as the plan asks."""

    patches: frozenset[str] = frozenset()
    draws: Mapping[str, Mapping[DrawName, Held]] = field(default_factory=dict)
    """Context id -> its draws, with the cuts answered in the answer context that was asked about."""
    graded: Mapping[str, int] = field(default_factory=dict)
    """Context id -> how many answers of it lack a grade."""


@dataclass(frozen=True)
class OwedContext:
    """The owed draws of one context."""

    variant: PlannedVariant
    decoding: Limits
    items: tuple[Item, ...]
    ungraded: int
    order: int

    @property
    def new_tokens(self) -> int:
        """At most this many thinking tokens will be generated."""
        return sum(
            max(0, max(item.job.limits) - len(item.job.prior.token_ids if item.job.prior else ()))
            for item in self.items
        )


@dataclass(frozen=True)
class Plan:
    """Everything that is owed, and what is there already."""

    survey: Survey
    patches: tuple[PlannedVariant, ...]
    """One variant per patch to be made."""
    contexts: tuple[OwedContext, ...]
    """Every context of the sweep, in grid order, also those that owe nothing."""
    cells: int
    draws_held: int
    draws_owed: int

    @property
    def nothing_owed(self) -> bool:
        return not self.patches and not self.draws_owed and not any(c.ungraded for c in self.contexts)


def make_plan(survey: Survey, holdings: Holdings) -> Plan:
    """Subtract `holdings` from `survey`."""
    contexts: list[OwedContext] = []
    seen: set[str] = set()
    held = 0
    for variant in survey.variants:
        for decoding in variant.decodings:
            if decoding.context.context_id in seen:
                continue  # two spellings of one variant: the same weights, the same draws
            seen.add(decoding.context.context_id)
            items, complete = _owed(survey, variant, decoding, holdings)
            held += complete
            ungraded = holdings.graded.get(decoding.context.context_id, 0)
            contexts.append(OwedContext(variant, decoding, items, ungraded, len(contexts)))
    wanted = {owed.variant.patch_id for owed in contexts if owed.items} - holdings.patches
    patches = {owed.variant.patch_id: owed.variant for owed in contexts if owed.variant.patch_id in wanted}
    cells = len(survey.variants) * len(survey.grid.token_limits)
    return Plan(
        survey,
        tuple(patches.values()),
        tuple(contexts),
        cells,
        held,
        sum(len(owed.items) for owed in contexts),
    )


def _owed(
    survey: Survey, variant: PlannedVariant, decoding: Limits, holdings: Holdings
) -> tuple[tuple[Item, ...], int]:
    stored = holdings.draws.get(decoding.context.context_id, {})
    items: list[Item] = []
    asked: set[DrawName] = set()
    complete = 0
    for question in variant.questions:
        for seed in survey.grid.sampling.seeds:
            name = (question.gold.prompt_id, seed)
            if name in asked:
                continue  # the same prompt in two benchmarks is one draw
            asked.add(name)
            have = stored.get(name)
            limits = owed_limits(have.trace, have.cuts, decoding.limits) if have else decoding.limits
            if not limits:
                complete += 1
                continue
            job = DrawJob(question.problem_id, question.prompt_ids, seed, limits, have.trace if have else None)
            items.append(Item(question.gold.prompt_id, question.benchmark, job))
    return tuple(items), complete
