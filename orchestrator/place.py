"""Where work goes: pure functions from what is waiting and what is idle to the next placement.

The rules, in order: an engine keeps the weights it holds while there is work for them; else it takes the variant with
the most remaining work per engine; shards shrink towards the end, so that no engine waits for another's last shard; the
longest expected draws go first, so that none of them starts last.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.messages import Shape

SHARDS_PER_ENGINE = 3
"""A variant's remaining work is cut into about this many shards per engine on it: large enough to keep an engine's
batch full, small enough that the last ones even out."""


@dataclass(frozen=True)
class Demand:
    """Work of one patch that is ready to run."""

    patch_id: str
    shape: Shape
    waiting: float
    """Expected tokens not yet given to any engine."""
    engines: int
    """How many engines hold this patch's weights or are on their way to them."""
    order: int
    """Position in the grid; the earlier wins a tie."""


@dataclass(frozen=True)
class Idle:
    """An engine without work."""

    worker: str
    shape: Shape
    patch_id: str | None


def choose(engine: Idle, demands: Iterable[Demand]) -> Demand | None:
    """The work that `engine` should take next, or None if nothing that fits its shape is waiting."""
    fitting = [demand for demand in demands if demand.shape == engine.shape and demand.waiting > 0]
    for demand in fitting:
        if demand.patch_id == engine.patch_id:
            return demand
    return max(fitting, key=lambda d: (d.waiting / (d.engines + 1), -d.order), default=None)


def shard_length(waiting: int, engines: int, smallest: int, largest: int) -> int:
    """How many of `waiting` draws the next shard takes when `engines` work on them."""
    fair = math.ceil(waiting / (max(engines, 1) * SHARDS_PER_ENGINE))
    return max(1, min(waiting, max(smallest, min(largest, fair))))


def shape_to_start(demands: Sequence[Demand], starting: Sequence[Shape]) -> Shape | None:
    """The shape that a new engine should have: the one with most work waiting per engine already coming up for it."""
    waiting: dict[Shape, float] = {}
    for demand in demands:
        waiting[demand.shape] = waiting.get(demand.shape, 0.0) + demand.waiting
    best = max(waiting, key=lambda shape: waiting[shape] / (1 + starting.count(shape)), default=None)
    return best if best is not None and waiting[best] > 0 else None
