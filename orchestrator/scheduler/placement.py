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
    waiting: float
    """Expected tokens not yet given to any engine."""
    draws: int
    """Draws not yet given to any engine."""
    given: float
    """Expected tokens given to engines and not yet committed."""
    engines: int
    """How many engines hold this patch's weights or are on their way to them."""
    order: int
    """Position in the grid; the earlier wins a tie."""

    def left(self, engines: int) -> float:
        """Expected tokens that each of so many engines would still have to generate; of one, if there is none."""
        return (self.waiting + self.given) / max(1, engines)


@dataclass(frozen=True)
class Idle:
    """An engine without work."""

    worker: str
    shape: Shape
    patch_id: str | None
    crowd: float = math.inf
    """So many engines may work on one variant for now: the others wait for the patches that are on their way."""


def choose_variant(engine: Idle, demands: Iterable[Demand]) -> Demand | None:
    """The work that `engine` should take next, or None if nothing that fits its shape is worth its while."""
    fitting = [demand for demand in demands if demand.shape == engine.shape and demand.waiting > 0]
    for demand in fitting:
        if demand.patch_id == engine.patch_id:
            return demand
    worth = [
        d for d in fitting if not d.engines or (d.engines < engine.crowd and d.draws > d.engines * MIN_DRAWS_PER_SWAP)
    ]
    return max(worth, key=lambda d: (d.waiting / (d.engines + 1), -d.order), default=None)


def help_laggard(held: Demand, demands: Iterable[Demand]) -> Demand | None:
    """The variant that an engine should go over to, though there is work for the weights it holds; None to stay.

    Without this, of 13 variants on 24 engines 11 would have two engines and end together at half time, and nearly all
    engines would then crowd on the two that had one.
    """
    others = [d for d in demands if d.patch_id != held.patch_id and d.draws > max(1, d.engines) * MIN_DRAWS_PER_SWAP]
    last = max(others, key=lambda d: (d.left(d.engines), -d.order), default=None)
    if held.engines < 2 or last is None or held.left(held.engines - 1) > LAGGARD_RATIO * last.left(last.engines):
        return None
    return last


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
