"""What a sweep owes: its survey minus what the store holds. Pure; promise plan-is-honest: `sweep` runs this very value.

Owed is decided answer by answer. A draw whose trace is stored owes only the answers at cuts that nobody asked for yet,
or the extension of its trace; a limit above a trace's natural end owes nothing.

Draws are numbered within their context: draw n is seed n % seeds of distinct question n // seeds, in grid order. What
is owed is a range or an array of numbers, so a plan of ten million draws is as small as one of ten thousand.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.draws import DrawJob
from orchestrator.survey import Limits, PlannedVariant, Survey
from workers.messages import Item


@dataclass(frozen=True)
class HeldContext:
    """What the store holds of one context, by draw number."""

    lengths: Sequence[int]
    """Tokens of each draw's trace; -1 where nothing is held."""
    partial: Mapping[int, tuple[int, ...]]
    """Draw -> limits that it owes still, for draws of which something is held. The others are complete."""


@dataclass(frozen=True)
class Holdings:
    """What the store holds, as far as the plan asks."""

    patches: frozenset[str] = frozenset()
    contexts: Mapping[str, HeldContext] = field(default_factory=dict)
    """Context id -> its draws. A context that is not here holds nothing."""
    ungraded: Mapping[str, int] = field(default_factory=dict)
    """Context id -> how many answers of it lack a grade."""


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
        begun = {number: self._held_tokens(number) for number in self.held.partial} if self.held else {}
        grown = sum(max(0, max(self._limits(number)) - held) for number, held in begun.items())
        return (len(self.numbers) - len(begun)) * self.limit + grown

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
    seeds = survey.grid.sampling.seeds
    held = 0
    for variant in survey.variants:
        for decoding in variant.decodings:
            name = decoding.context.context_id
            if name in seen:
                continue  # two spellings of one variant: the same weights, the same draws
            seen.add(name)
            stored = holdings.contexts.get(name)
            draws = len(variant.distinct) * len(seeds)
            numbers = owed_numbers(draws, stored)
            held += draws - len(numbers)
            ungraded = holdings.ungraded.get(name, 0)
            contexts.append(OwedContext(variant, decoding, seeds, numbers, stored, ungraded, len(contexts)))
    wanted = {owed.variant.patch_id for owed in contexts if owed.numbers} - holdings.patches
    patches = {owed.variant.patch_id: owed.variant for owed in contexts if owed.variant.patch_id in wanted}
    cells = len(survey.variants) * len(survey.grid.token_limits)
    owed_draws = sum(len(owed.numbers) for owed in contexts)
    return Plan(survey, tuple(patches.values()), tuple(contexts), cells, held, owed_draws)


def owed_numbers(draws: int, held: HeldContext | None) -> Sequence[int]:
    """The draws, of so many, of which something is owed."""
    if held is None:
        return range(draws)
    return array("I", (n for n in range(draws) if held.lengths[n] < 0 or n in held.partial))
