"""Whether one more draw may begin: as long as the key-value cache is expected to hold all of them until they end. Pure.

When the cache is full, the engine preempts a draw and computes its tokens again later. So the demand is forecast: at
every step ahead, each draw holds what it has by then, with the probability that it has not ended; the sum's mean plus
`DEVIATIONS` standard deviations must fit. Draws that end make room for those that still grow, which a sum of final
lengths would not see. (The peak ahead is that of the Past-Future scheduler, Gong et al., ASPLOS 2025, which draws
lengths at random where this takes their distribution.)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from workers.engines.engine import Capacity

DEVIATIONS = 1.5
"""What is kept free for chance. Fewer, and tokens are computed again; more, and places stay empty (docs/engine.md)."""

STRETCHES = 128
"""The time ahead is cut into so many stretches. In each, who lives at its beginning holds what it will at its end."""

Kind = tuple[str, str, bool]
"""(context, benchmark, whether its trace was begun before): draws of one kind live equally long, as far as is known."""


@dataclass(frozen=True)
class Footprint:
    """What one draw holds of the cache, and will."""

    kind: Kind
    held: int
    """Tokens that it holds now, its prompt included."""
    age: int
    """Steps that it has lived: the tokens of its trace so far, and of its longest answer."""
    most: int
    """The age at which it ends at the latest."""
    growth: int = 1
    """Tokens that it takes in every step: as many as it has answers under way."""
    answer_steps: float = 0.0
    """The last steps of its life, for which it answers; 0 once it does."""
    answer_tokens: float = 0.0
    """Tokens that its answers hold then, beside one for each step."""


@dataclass
class Past:
    """The draws of one kind that are over."""

    ended: list[int] = field(default_factory=list)
    """The ages of those whose trace ended by itself."""
    cut: list[int] = field(default_factory=list)
    """The ages of those whose trace a limit cut: with a larger one they would have lived longer."""
    answer_steps: int = 0
    answer_tokens: int = 0
    """As in `Footprint`, summed over all."""


class Survival:
    """The probability that a draw lives longer than an age, by those that ended and those that may have lived longer.

    The product-limit estimate (Kaplan and Meier, 1958). Those that have ended so far are shorter than most, so each
    draw that still runs, or was cut, counts in every age that it reached. Before the first end, nobody ends early.
    """

    def __init__(self, ended: Iterable[int], longer: Iterable[int]) -> None:
        known, censored = np.sort(np.fromiter(ended, np.int64)), np.sort(np.fromiter(longer, np.int64))
        self._ages, ends = np.unique(known, return_counts=True)
        left = [len(some) - np.searchsorted(some, self._ages, "left") for some in (known, censored)]
        self._values = np.concatenate(([1.0], np.cumprod(1.0 - ends / (left[0] + left[1]))))

    def beyond(self, age: NDArray[np.floating]) -> NDArray[np.float64]:
        """The probability of living longer than `age`, elementwise."""
        return self._values[np.searchsorted(self._ages, age, "right")]


@dataclass(frozen=True)
class Forecast:
    """The demand of some draws from now on, in tokens: its mean and variance in every stretch ahead."""

    capacity: Capacity
    survival: Mapping[Kind, Survival]
    stretch: float
    """Its length, in steps."""
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def of(cls, capacity: Capacity, running: Sequence[Footprint], past: Mapping[Kind, Past], steps: int) -> "Forecast":
        """The demand of the `running` draws, and of none else, over the next `steps` steps."""
        longer = {kind: list(over.cut) for kind, over in past.items()}
        for footprint in running:
            longer.setdefault(footprint.kind, []).append(footprint.age)
        survival = {kind: Survival(past[kind].ended if kind in past else (), ages) for kind, ages in longer.items()}
        nothing = np.zeros(STRETCHES)
        forecast = cls(capacity, survival, steps / STRETCHES, nothing, nothing)
        for footprint in running:
            forecast = forecast.plus(footprint)
        return forecast

    def plus(self, footprint: Footprint) -> "Forecast":
        """The demand with one draw more."""
        begins = self.stretch * np.arange(STRETCHES)
        ages = footprint.age + begins
        survival = self.survival.get(footprint.kind) or Survival((), ())
        share = survival.beyond(ages[:1])
        lives = np.where(ages < footprint.most, survival.beyond(ages) / share, 0.0)
        later = ages + footprint.answer_steps
        answers = lives - np.where(later < footprint.most, survival.beyond(later) / share, 0.0)
        grown = footprint.held + footprint.growth * np.minimum(begins + self.stretch, footprint.most - footprint.age)
        holds = np.ceil(grown / self.capacity.block_tokens) * self.capacity.block_tokens
        return replace(
            self,
            mean=self.mean + lives * holds + answers * footprint.answer_tokens,
            variance=self.variance + lives * (1.0 - lives) * holds * holds,
        )

    @property
    def fits(self) -> bool:
        """Whether the cache is expected to hold the demand at every time ahead."""
        return bool(np.max(self.mean + DEVIATIONS * np.sqrt(self.variance)) <= self.capacity.cache_tokens)
