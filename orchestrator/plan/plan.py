"""What a sweep owes: the resolved grid minus what the store has. Pure. `sweep` runs the very plan that `plan` prints.

Owed is decided answer by answer. A draw whose trace is stored owes only the answers at new cuts, or the extension of
its trace; a limit above a trace's natural end owes nothing.

Draws are numbered within their context: draw n is seed n % seeds of distinct question n // seeds, in grid order. What
is owed is a range or an array of numbers, so a plan of ten million draws is as small as one of ten thousand.
"""

from array import array
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields

from eval.draws import DrawJob
from orchestrator.plan.resolved_grid import Decoding, ResolvedGrid, ResolvedVariant
from workers.messages import Item


@dataclass(frozen=True)
class StoredContext:
    """What the store has of one context, by draw number."""

    lengths: Sequence[int]
    """Tokens of each draw's trace; -1 where nothing is stored."""
    owed_limits: Mapping[int, tuple[int, ...]]
    """Draw -> the limits it still owes, for draws that are stored in part. Every other stored draw is complete."""
    unfinished: Set[int] = frozenset()
    """The draws of `owed_limits` whose trace must be continued. The rest owe only answers to the stored trace."""


@dataclass(frozen=True)
class StoredState:
    """What the store has, as far as a plan needs to know."""

    patches: frozenset[str] = frozenset()
    contexts: Mapping[str, StoredContext] = field(default_factory=dict)
    """Context id -> its draws. Nothing is stored of a context that is absent here."""
    ungraded: Mapping[str, int] = field(default_factory=dict)
    """Context id -> how many of its answers the grader has not judged."""


@dataclass(frozen=True)
class OwedCounts:
    """What is owed, by the work it takes."""

    new: int = 0
    """Draws of which nothing is stored."""
    continued: int = 0
    """Draws whose stored trace must be continued."""
    answered: int = 0
    """Draws whose stored trace needs only further answers."""
    answers: int = 0
    """How many answers the `answered` draws owe."""
    grades: int = 0
    """Stored answers that the grader has not judged."""

    def __add__(self, other: "OwedCounts") -> "OwedCounts":
        return OwedCounts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(OwedCounts)))


@dataclass(frozen=True)
class OwedContext:
    """The owed draws of one context."""

    variant: ResolvedVariant
    decoding: Decoding
    seeds: tuple[int, ...]
    numbers: Sequence[int]
    """The owed draws, ascending."""
    stored: StoredContext | None
    ungraded: int
    """Stored answers that the grader has not judged."""
    order: int
    """Its position in the grid."""

    @property
    def limit(self) -> int:
        return max(self.decoding.limits)

    @property
    def draws(self) -> int:
        """All draws of the context, owed or stored."""
        return len(self.variant.distinct) * len(self.seeds)

    @property
    def new_tokens(self) -> int:
        """Upper bound on the thinking tokens that will be generated."""
        if self.stored is None:
            return len(self.numbers) * self.limit
        grown = sum(max(self._limits(number)) - self._stored_length(number) for number in self.stored.unfinished)
        return (len(self.numbers) - len(self.stored.owed_limits)) * self.limit + grown

    @property
    def counts(self) -> OwedCounts:
        if self.stored is None:
            return OwedCounts(new=len(self.numbers), grades=self.ungraded)
        owed_limits, unfinished = self.stored.owed_limits, self.stored.unfinished
        answered = {number: limits for number, limits in owed_limits.items() if number not in unfinished}
        cuts = sum(len({min(limit, self._stored_length(n)) for limit in limits}) for n, limits in answered.items())
        return OwedCounts(len(self.numbers) - len(owed_limits), len(unfinished), len(answered), cuts, self.ungraded)

    def items(self, numbers: Sequence[int]) -> tuple[Item, ...]:
        """The draws with these numbers, as a worker receives them."""
        return tuple(map(self._item, numbers))

    def _item(self, number: int) -> Item:
        index, seed = divmod(number, len(self.seeds))
        question = self.variant.distinct[index]
        job = DrawJob(question.problem_id, question.prompt_ids, self.seeds[seed], self._limits(number))
        continues = self.stored is not None and number in self.stored.owed_limits
        return Item(number, question.gold.prompt_id, question.benchmark, job, continues)

    def _limits(self, number: int) -> tuple[int, ...]:
        owed_limits = self.stored.owed_limits if self.stored is not None else {}
        return owed_limits.get(number, self.decoding.limits)

    def _stored_length(self, number: int) -> int:
        return max(0, self.stored.lengths[number]) if self.stored is not None else 0

    def stored_tokens(self) -> dict[int, int]:
        """Draw -> tokens of its stored trace, for the owed draws that have one."""
        owed_limits = self.stored.owed_limits if self.stored is not None else {}
        return {number: self._stored_length(number) for number in owed_limits}


@dataclass(frozen=True)
class RepeatedVariant:
    """A variant with the same content as an earlier one: its calibration file is a copy, say."""

    variant: ResolvedVariant
    first: ResolvedVariant

    @property
    def sentence(self) -> str:
        return (
            f"line {self.variant.line}: {self.variant.label} has the same content as {self.first.label} on line "
            f"{self.first.line}, and is counted once"
        )


@dataclass(frozen=True)
class Plan:
    """Everything that is owed, and the counts of what is stored."""

    resolved: ResolvedGrid
    patches: tuple[ResolvedVariant, ...]
    """One variant per owed patch."""
    contexts: tuple[OwedContext, ...]
    """Every context of the sweep, in grid order, including those that owe nothing."""
    repeats: tuple[RepeatedVariant, ...]
    cells: int
    """Without those of `repeats`."""
    patches_stored: int
    draws_stored: int
    draws_owed: int

    @property
    def variants(self) -> int:
        """How many there are, without `repeats`."""
        return len(self.resolved.variants) - len(self.repeats)

    @property
    def counts(self) -> OwedCounts:
        return sum((context.counts for context in self.contexts), OwedCounts())

    @property
    def nothing_owed(self) -> bool:
        return (
            not self.resolved.awaiting
            and not self.patches
            and not self.draws_owed
            and not any(c.ungraded for c in self.contexts)
        )

    @property
    def shared_draws(self) -> int:
        """How many draws are saved because two benchmarks ask the same question."""
        variants = {context.variant.patch_id: context.variant for context in self.contexts}.values()
        seeds = len(self.resolved.grid.sampling.seeds)
        return seeds * sum(len(variant.questions) - len(variant.distinct) for variant in variants)

    @property
    def comparisons(self) -> int:
        """How many tests against dense the sweep's design makes; at least 1."""
        pruned = {variant.patch_id for variant in self.resolved.variants if not variant.dense}
        return max(1, len(pruned) * len(self.resolved.grid.token_limits) * len(self.resolved.benchmarks))


def make_plan(resolved: ResolvedGrid, stored: StoredState) -> Plan:
    """Subtract `stored` from `resolved`."""
    contexts: list[OwedContext] = []
    first: dict[str, ResolvedVariant] = {}
    repeats: list[RepeatedVariant] = []
    seeds = resolved.grid.sampling.seeds
    for variant in resolved.variants:
        if first.setdefault(variant.patch_id, variant) is not variant:
            repeats.append(RepeatedVariant(variant, first[variant.patch_id]))
            continue  # the same weights, the same draws
        for decoding in variant.decodings:
            context_id = decoding.context.context_id
            draws = stored.contexts.get(context_id)
            numbers = owed_numbers(len(variant.distinct) * len(seeds), draws)
            ungraded = stored.ungraded.get(context_id, 0)
            contexts.append(OwedContext(variant, decoding, seeds, numbers, draws, ungraded, len(contexts)))
    needed = {owed.variant.patch_id for owed in contexts if owed.numbers} - stored.patches
    patches = {owed.variant.patch_id: owed.variant for owed in contexts if owed.variant.patch_id in needed}
    draws_owed = sum(len(owed.numbers) for owed in contexts)
    return Plan(
        resolved,
        tuple(patches.values()),
        tuple(contexts),
        tuple(repeats),
        cells=len(first) * len(resolved.grid.token_limits),
        patches_stored=len(first.keys() & stored.patches),
        draws_stored=sum(owed.draws for owed in contexts) - draws_owed,
        draws_owed=draws_owed,
    )


def owed_numbers(draws: int, stored: StoredContext | None) -> Sequence[int]:
    """Which draws of a context owe anything, out of 0 to `draws` - 1."""
    if stored is None:
        return range(draws)
    return array("I", (n for n in range(draws) if stored.lengths[n] < 0 or n in stored.owed_limits))
