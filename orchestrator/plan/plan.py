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
from orchestrator.plan.resolve import Limits, PlannedVariant, Survey
from workers.messages import Item


@dataclass(frozen=True)
class HeldContext:
    """What the store holds of one context, by draw number."""

    lengths: Sequence[int]
    """Tokens of each draw's trace; -1 where nothing is held."""
    partial: Mapping[int, tuple[int, ...]]
    """Draw -> limits that it owes still, for draws of which something is held. The others are complete."""
    growing: Set[int] = frozenset()
    """Those of `partial` whose trace has to go on. The others lack only answers to the trace that is held."""


@dataclass(frozen=True)
class Holdings:
    """What the store holds, as far as the plan asks."""

    patches: frozenset[str] = frozenset()
    contexts: Mapping[str, HeldContext] = field(default_factory=dict)
    """Context id -> its draws. A context that is not here holds nothing."""
    ungraded: Mapping[str, int] = field(default_factory=dict)
    """Context id -> how many answers of it lack a grade."""


@dataclass(frozen=True)
class Kinds:
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

    def __add__(self, other: "Kinds") -> "Kinds":
        return Kinds(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Kinds)))


@dataclass(frozen=True)
class OwedContext:
    """The owed draws of one context."""

    variant: PlannedVariant
    decoding: Limits
    seeds: tuple[int, ...]
    numbers: Sequence[int]
    """The draws that are owed, rising."""
    held: HeldContext | None
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
        grown = sum(max(self._limits(number)) - self._held_tokens(number) for number in self.held.growing)
        return (len(self.numbers) - len(self.held.partial)) * self.limit + grown

    @property
    def kinds(self) -> Kinds:
        if self.held is None:
            return Kinds(new=len(self.numbers), grades=self.ungraded)
        partial, growing = self.held.partial, self.held.growing
        lacking = {number: limits for number, limits in partial.items() if number not in growing}
        cuts = sum(len({min(limit, self._held_tokens(n)) for limit in limits}) for n, limits in lacking.items())
        return Kinds(len(self.numbers) - len(partial), len(growing), len(lacking), cuts, self.ungraded)

    def items(self, numbers: Sequence[int]) -> tuple[Item, ...]:
        """The draws of these numbers, as a worker needs them."""
        return tuple(map(self._item, numbers))

    def _item(self, number: int) -> Item:
        index, seed = divmod(number, len(self.seeds))
        question = self.variant.distinct[index]
        job = DrawJob(question.problem_id, question.prompt_ids, self.seeds[seed], self._limits(number))
        continues = self.held is not None and number in self.held.partial
        return Item(number, question.gold.prompt_id, question.benchmark, job, continues)

    def _limits(self, number: int) -> tuple[int, ...]:
        partial = self.held.partial if self.held is not None else {}
        return partial.get(number, self.decoding.limits)

    def _held_tokens(self, number: int) -> int:
        return max(0, self.held.lengths[number]) if self.held is not None else 0

    def held_tokens(self) -> dict[int, int]:
        """Of the draws that go on from something stored: draw -> tokens of its stored trace."""
        return {number: self._held_tokens(number) for number in self.held.partial} if self.held is not None else {}


@dataclass(frozen=True)
class Plan:
    """Everything that is owed, and what is there already."""

    survey: Survey
    patches: tuple[PlannedVariant, ...]
    """One variant per patch to be made."""
    contexts: tuple[OwedContext, ...]
    """Every context of the sweep, in grid order, also those that owe nothing."""
    repeats: tuple[tuple[PlannedVariant, PlannedVariant], ...]
    """Variants with the very content of one before them (a calibration file and its copy, say), and that one."""
    cells: int
    """Without those of repeats."""
    patches_held: int
    draws_held: int
    draws_owed: int

    @property
    def variants(self) -> int:
        """How many there are, without repeats."""
        return len(self.survey.variants) - len(self.repeats)

    @property
    def kinds(self) -> Kinds:
        return sum((context.kinds for context in self.contexts), Kinds())

    @property
    def nothing_owed(self) -> bool:
        return not self.patches and not self.draws_owed and not any(c.ungraded for c in self.contexts)


def make_plan(survey: Survey, holdings: Holdings) -> Plan:
    """Subtract `holdings` from `survey`."""
    contexts: list[OwedContext] = []
    first: dict[str, PlannedVariant] = {}
    repeats: list[tuple[PlannedVariant, PlannedVariant]] = []
    seeds = survey.grid.sampling.seeds
    held = 0
    for variant in survey.variants:
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
        survey,
        tuple(patches.values()),
        tuple(contexts),
        tuple(repeats),
        cells=len(first) * len(survey.grid.token_limits),
        patches_held=len(first.keys() & holdings.patches),
        draws_held=held,
        draws_owed=sum(len(owed.numbers) for owed in contexts),
    )


def owed_numbers(draws: int, held: HeldContext | None) -> Sequence[int]:
    """The draws, of so many, of which something is owed."""
    if held is None:
        return range(draws)
    return array("I", (n for n in range(draws) if held.lengths[n] < 0 or n in held.partial))
