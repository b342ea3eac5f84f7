"""What a sweep owes: its survey minus what the store holds. Pure; promise plan-is-honest: `sweep` runs this very value.

Owed is decided answer by answer. A draw whose trace is stored owes only the answers at cuts that nobody asked for yet,
or the extension of its trace; a limit above a trace's natural end owes nothing.

Draws are numbered within their context: draw n is seed n % seeds of distinct question n // seeds, in grid order. What
is owed is a range or an array of numbers, so a plan of ten million draws is as small as one of ten thousand.
"""

from array import array
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields

from eval.draws import DrawJob
from orchestrator.plan.resolve import Decoding, ResolvedGrid, ResolvedVariant
from workers.messages import Item


@dataclass(frozen=True)
class StoredContext:
    """What the store holds of one context, by draw number."""

    lengths: Sequence[int]
    """Tokens of each draw's trace; -1 where nothing is held."""
    owed_limits: Mapping[int, tuple[int, ...]]
    """Draw -> limits that it owes still, for draws of which something is held. The others are complete."""
    unfinished: Set[int] = frozenset()
    """Those of `owed_limits` whose trace has to go on. The others lack only answers to the trace that is held."""


@dataclass(frozen=True)
class StoredState:
    """What the store holds, as far as the plan asks."""

    patches: frozenset[str] = frozenset()
    contexts: Mapping[str, StoredContext] = field(default_factory=dict)
    """Context id -> its draws. A context that is not here holds nothing."""
    ungraded: Mapping[str, int] = field(default_factory=dict)
    """Context id -> how many answers of it lack a grade."""


@dataclass(frozen=True)
class OwedCounts:
    """What is owed, by what it takes."""

    new: int = 0
    """Draws of which nothing is stored."""
    continued: int = 0
    """Draws whose stored trace has to go on."""
    answered: int = 0
    """Draws whose stored trace lacks answers only."""
    answers: int = 0
    """How many answers those lack."""
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
    """The draws that are owed, rising."""
    held: StoredContext | None
    ungraded: int
    order: int

    @property
    def limit(self) -> int:
        return max(self.decoding.limits)

    @property
    def new_tokens(self) -> int:
        """At most this many thinking tokens will be generated."""
        if self.held is None:
            return len(self.numbers) * self.limit
        grown = sum(max(self._limits(number)) - self._held_tokens(number) for number in self.held.unfinished)
        return (len(self.numbers) - len(self.held.owed_limits)) * self.limit + grown

    @property
    def kinds(self) -> OwedCounts:
        if self.held is None:
            return OwedCounts(new=len(self.numbers), grades=self.ungraded)
        owed_limits, unfinished = self.held.owed_limits, self.held.unfinished
        lacking = {number: limits for number, limits in owed_limits.items() if number not in unfinished}
        cuts = sum(len({min(limit, self._held_tokens(n)) for limit in limits}) for n, limits in lacking.items())
        return OwedCounts(len(self.numbers) - len(owed_limits), len(unfinished), len(lacking), cuts, self.ungraded)

    def items(self, numbers: Sequence[int]) -> tuple[Item, ...]:
        """The draws of these numbers, as a worker needs them."""
        return tuple(map(self._item, numbers))

    def _item(self, number: int) -> Item:
        index, seed = divmod(number, len(self.seeds))
        question = self.variant.distinct[index]
        job = DrawJob(question.problem_id, question.prompt_ids, self.seeds[seed], self._limits(number))
        continues = self.held is not None and number in self.held.owed_limits
        return Item(number, question.gold.prompt_id, question.benchmark, job, continues)

    def _limits(self, number: int) -> tuple[int, ...]:
        owed_limits = self.held.owed_limits if self.held is not None else {}
        return owed_limits.get(number, self.decoding.limits)

    def _held_tokens(self, number: int) -> int:
        return max(0, self.held.lengths[number]) if self.held is not None else 0

    def held_tokens(self) -> dict[int, int]:
        """Of the draws that go on from something stored: draw -> tokens of its stored trace."""
        return {number: self._held_tokens(number) for number in self.held.owed_limits} if self.held is not None else {}


@dataclass(frozen=True)
class Plan:
    """Everything that is owed, and what is there already."""

    resolved: ResolvedGrid
    patches: tuple[ResolvedVariant, ...]
    """One variant per patch to be made."""
    contexts: tuple[OwedContext, ...]
    """Every context of the sweep, in grid order, also those that owe nothing."""
    repeats: tuple[tuple[ResolvedVariant, ResolvedVariant], ...]
    """Variants with the very content of one before them (a calibration file and its copy, say), and that one."""
    cells: int
    """Without those of repeats."""
    patches_held: int
    draws_held: int
    draws_owed: int

    @property
    def variants(self) -> int:
        """How many there are, without repeats."""
        return len(self.resolved.variants) - len(self.repeats)

    @property
    def kinds(self) -> OwedCounts:
        return sum((context.kinds for context in self.contexts), OwedCounts())

    @property
    def nothing_owed(self) -> bool:
        return not self.patches and not self.draws_owed and not any(c.ungraded for c in self.contexts)


def make_plan(resolved: ResolvedGrid, holdings: StoredState) -> Plan:
    """Subtract `holdings` from `resolved`."""
    contexts: list[OwedContext] = []
    first: dict[str, ResolvedVariant] = {}
    repeats: list[tuple[ResolvedVariant, ResolvedVariant]] = []
    seeds = resolved.grid.sampling.seeds
    held = 0
    for variant in resolved.variants:
        if first.setdefault(variant.patch_id, variant) is not variant:
            repeats.append((variant, first[variant.patch_id]))
            continue  # the same weights, the same draws
        for decoding in variant.decodings:
            name = decoding.context.context_id
            stored = holdings.contexts.get(name)
            draws = len(variant.distinct) * len(seeds)
            numbers = owed_numbers(draws, stored)
            held += draws - len(numbers)
            ungraded = holdings.ungraded.get(name, 0)
            contexts.append(OwedContext(variant, decoding, seeds, numbers, stored, ungraded, len(contexts)))
    wanted = {owed.variant.patch_id for owed in contexts if owed.numbers} - holdings.patches
    patches = {owed.variant.patch_id: owed.variant for owed in contexts if owed.variant.patch_id in wanted}
    return Plan(
        resolved,
        tuple(patches.values()),
        tuple(contexts),
        tuple(repeats),
        cells=len(first) * len(resolved.grid.token_limits),
        patches_held=len(first.keys() & holdings.patches),
        draws_held=held,
        draws_owed=sum(len(owed.numbers) for owed in contexts),
    )


def owed_numbers(draws: int, held: StoredContext | None) -> Sequence[int]:
    """The draws, of so many, of which something is owed."""
    if held is None:
        return range(draws)
    return array("I", (n for n in range(draws) if held.lengths[n] < 0 or n in held.owed_limits))
