"""Where work goes: pure functions from what is waiting and what is idle to the next placement.

The rules, in order: an engine keeps the weights it holds while there is work for them, unless another variant lags far
behind; else it takes the variant with the most remaining work per engine; shards shrink towards the end, so that no
engine waits for another's last shard; the longest expected draws go first, so that none of them starts last. Shapes get
engines in proportion to their work, because an engine that changes its shape has to start anew.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from workers.messages import Shape

SHARDS_PER_ENGINE = 6
"""A variant's remaining work is cut into about this many shards per engine on it: large enough to keep an engine's
batch full, small enough that the last ones even out."""

PRUNERS_SHARE = 4
"""Of so many devices, one prunes while patches are many: a patch takes minutes, and its evaluation the better part of
an hour, so patches stay ahead of need."""

LAGGARD_RATIO = 0.75
"""An engine goes over to a variant that lags if those that stay behind will be done within this part of the time that
it would take. Less, and they go too late to help; near 1 they move to and fro, at nearly twice the swaps."""

ROUNDING_ALLOWANCE = 0.1
"""A shape with n engines gets another only when its work needs more than n + 0.1; see `share_engines`."""

MIN_DRAWS_PER_SWAP = 32
"""An engine joins others at a variant if more draws than this wait there for each of them: fewer will have begun, or
will soon have, by the time that it has swapped."""


@dataclass(frozen=True)
class Demand:
    """Work of one patch that is ready to run."""

    patch_id: str
    shape: Shape
    waiting_tokens: float
    """Expected tokens of the draws that no engine has."""
    waiting_draws: int
    in_flight_tokens: float
    """Expected tokens of the draws that engines have and have not committed."""
    engines: int
    """How many engines hold this patch's weights or have been told to take them."""
    order: int
    """Position in the grid; the earlier wins a tie."""

    def tokens_per_engine(self, engines: int) -> float:
        """Expected tokens that each of so many engines would still have to generate; 0 engines count as 1."""
        return (self.waiting_tokens + self.in_flight_tokens) / max(1, engines)

    def worth_joining(self) -> bool:
        """Whether another engine would still find draws to begin when it has swapped."""
        return not self.engines or self.waiting_draws > self.engines * MIN_DRAWS_PER_SWAP


@dataclass(frozen=True)
class IdleEngine:
    """An engine without work."""

    shape: Shape
    patch_id: str | None
    """The weights that it holds."""
    engines_per_variant: float = math.inf
    """With how many engines on it a variant takes no more for now: patches are on their way for the others."""


def choose_variant(engine: IdleEngine, demands: Iterable[Demand]) -> Demand | None:
    """The variant that an idle engine should take: its own while draws wait for that, else the one with the most
    waiting tokens per engine. None if no variant of its shape is worth joining."""
    fitting = [demand for demand in demands if demand.shape == engine.shape and demand.waiting_tokens > 0]
    for demand in fitting:
        if demand.patch_id == engine.patch_id:
            return demand
    open_to_it = [d for d in fitting if not d.engines or (d.engines < engine.engines_per_variant and d.worth_joining())]
    return max(open_to_it, key=lambda d: (d.waiting_tokens / (d.engines + 1), -d.order), default=None)


def help_laggard(held: Demand, demands: Iterable[Demand]) -> Demand | None:
    """The variant that an engine should go over to, though there is work for the weights it holds; None to stay.

    Without this, of 13 variants on 24 engines 11 would have two engines and end together at half time, and nearly all
    engines would then crowd on the two that had one.
    """
    others = [
        d for d in demands if d.patch_id != held.patch_id and d.waiting_draws > max(1, d.engines) * MIN_DRAWS_PER_SWAP
    ]
    last = max(others, key=lambda d: (d.tokens_per_engine(d.engines), -d.order), default=None)
    if last is None or held.engines < 2:
        return None
    without_one = held.tokens_per_engine(held.engines - 1)
    return last if without_one <= LAGGARD_RATIO * last.tokens_per_engine(last.engines) else None


def shard_length(waiting: int, engines: int, smallest: int, largest: int) -> int:
    """How many of `waiting` draws the next shard takes when `engines` work on them."""
    fair = math.ceil(waiting / (max(engines, 1) * SHARDS_PER_ENGINE))
    return max(1, min(waiting, max(smallest, min(largest, fair))))


def share_engines(work: Mapping[Shape, float], engines: int) -> dict[Shape, int]:
    """Share out `engines` among shapes in proportion to their work: each goes to who has most work per engine.

    For this, a shape counts as if it had `ROUNDING_ALLOWANCE` engines more than it has (a divisor method; with 0 it
    would be Adams'): one that lacks hardly more than that ends a little late, which is cheaper than an engine that has
    to start anew when its shape is done early. Where there are fewer engines than shapes, those with the least work
    come away with none, and wait until another's engines run out of work.
    """
    by_size = sorted((shape for shape, tokens in work.items() if tokens > 0), key=lambda shape: -work[shape])
    shares = dict.fromkeys(work, 0) | dict.fromkeys(by_size[:engines], 1)
    if len(by_size) < engines:
        # Rounding by this divisor gives out no more than there are; the last few go one by one.
        divisor = sum(work.values()) / (engines - len(by_size))
        shares |= {shape: max(1, math.ceil(work[shape] / divisor - ROUNDING_ALLOWANCE)) for shape in by_size}
    for _ in range(engines - sum(shares.values()) if by_size else 0):
        shares[max(by_size, key=lambda shape: (work[shape] / (shares[shape] + ROUNDING_ALLOWANCE), -work[shape]))] += 1
    return shares


def pruners_wanted(patches: int, slots: int, supplied: int) -> int:
    """How many devices should prune when `patches` are to be made, and `supplied` devices have a variant to evaluate.

    The others would have none; so patches are made first, on all of them, and then on a share, ahead of need.
    """
    return min(patches, max(math.ceil(slots / PRUNERS_SHARE), slots - supplied))
