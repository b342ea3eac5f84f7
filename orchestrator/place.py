"""Where work goes: pure functions from what is waiting and what is idle to the next placement.

The rules, in order: an engine keeps the weights it holds while there is work for them; else it takes the variant with
the most remaining work per engine; shards shrink towards the end, so that no engine waits for another's last shard; the
longest expected draws go first, so that none of them starts last. Engines are shared out among shapes in proportion to
their work, because one that changes its shape has to start anew.
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

WORTH_A_SWAP = 32
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
    crowd: float = math.inf
    """So many engines may work on one variant for now: the others wait for the patches that are on their way."""


def choose(engine: Idle, demands: Iterable[Demand]) -> Demand | None:
    """The work that `engine` should take next, or None if nothing that fits its shape is worth its while."""
    fitting = [demand for demand in demands if demand.shape == engine.shape and demand.waiting > 0]
    for demand in fitting:
        if demand.patch_id == engine.patch_id:
            return demand
    worth = [d for d in fitting if not d.engines or (d.engines < engine.crowd and d.draws > d.engines * WORTH_A_SWAP)]
    return max(worth, key=lambda d: (d.waiting / (d.engines + 1), -d.order), default=None)


def shard_length(waiting: int, engines: int, smallest: int, largest: int) -> int:
    """How many of `waiting` draws the next shard takes when `engines` work on them."""
    fair = math.ceil(waiting / (max(engines, 1) * SHARDS_PER_ENGINE))
    return max(1, min(waiting, max(smallest, min(largest, fair))))


def allot(work: Mapping[Shape, float], engines: int) -> dict[Shape, int]:
    """Share out `engines` among shapes in proportion to their work, rounded up for the small ones (Adams).

    A small shape that is done early gives its engines to the large ones, which can use any number to the end; the other
    way round, the sweep would end with a few engines at work. Where there are fewer engines than shapes, those with the
    least work come away with none, and wait until another's engines run out of work.
    """
    by_size = sorted((shape for shape, tokens in work.items() if tokens > 0), key=lambda shape: -work[shape])
    shares = dict.fromkeys(work, 0) | dict.fromkeys(by_size[:engines], 1)
    if len(by_size) < engines:
        # Rounding up by this divisor gives out no more than there are; the last few go to who lacks one most.
        divisor = sum(work.values()) / (engines - len(by_size))
        shares |= {shape: math.ceil(work[shape] / divisor) for shape in by_size}
    for _ in range(engines - sum(shares.values()) if by_size else 0):
        shares[max(by_size, key=lambda shape: (work[shape] / shares[shape], -work[shape]))] += 1
    return shares


def pruners_wanted(patches: int, slots: int, unused: int) -> int:
    """How many devices should prune when `patches` are to be made: some, and every one that has nothing else to do.

    Where devices are plenty, all patches are made at once: engines then begin with variants of their own.
    """
    if patches <= slots // 2:
        return patches
    return min(patches, max(math.ceil(slots / PRUNERS_SHARE), unused))
