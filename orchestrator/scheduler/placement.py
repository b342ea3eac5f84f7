"""Where work goes: pure functions from what waits and which engines are idle to the next placement.

An engine keeps the weights that it holds while draws wait for them, unless another variant lags far behind; else it
takes the variant with the most waiting work per engine. Shards shrink towards the end, so that no engine waits for
another's last shard. Shapes get engines in proportion to their work, because an engine cannot change its shape.

Each rule says where it pays: makespan over the lower bound of `python -m benchmarks.placement` without the rule -> with
it. That is the paper's grid: 30 variants of 6 shapes, patches to be made, means of three sets of lengths, equal to
about 0.01. Ordering draws by expected length (work.py) pays everywhere, by 0.04 to 0.10.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from workers.messages import Shape

Pass = tuple[str, str]
"""(model, name): a pass over a model that several patches need."""

SHARDS_PER_ENGINE = 6
"""A variant's waiting draws are cut into about this many shards per engine on it: large enough to keep an engine's
batch full, small enough that the last ones even out. Without it all shards are of the largest size. Pays from about 50
engines: 1.28 -> 1.24 at 56, 1.44 -> 1.38 at 128."""

PRUNERS_SHARE = 4
"""One of this many devices prunes although there is a variant for it to evaluate: a patch takes minutes and its
evaluation most of an hour, so patches stay ahead of need. Pays at 8 and 16 engines, where otherwise shapes wait and 4
to 7 more engines start: 1.05 -> 1.04 at 8, 1.07 -> 1.06 at 16; larger fleets prune first (see `pruners_wanted`)."""

LAGGARD_RATIO = 0.75
"""An engine switches to a laggard if the engines that stay will be done within this part of the time that the laggard
needs. With 0.5 engines switch too late to help (1.28 instead of 1.24 at 56); with 1 they oscillate between variants, at
up to 1.5 times the swaps (1.23 instead of 1.18 at 64)."""

ROUNDING_ALLOWANCE = 0.1
"""A shape with n engines gets another only when its work needs more than n + 0.1; see `share_engines`. Changes no
makespan, and with 0 there are 75 engine starts instead of 70 at 64 engines, 43 instead of 40 at 32."""

MIN_DRAWS_PER_SWAP = 32
"""An engine joins others at a variant only if more draws than this wait there for each of them: fewer will have begun
by the time that it has swapped. Changes no makespan and saves swaps: 4 of 89 at 56 engines, 2 of 32 in small sweeps."""


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
    """A variant with this many engines takes no more for now, because patches are on their way. Pays from 64
    engines: 1.25 -> 1.18 at 64, 1.56 -> 1.38 at 128, and a quarter to a third fewer swaps; not at 56 (1.21 -> 1.24)."""


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
    """The variant that an engine should switch to, though there is work for the weights it holds; None to stay.

    Pays where a shape has between one and two engines per variant: 1.35 -> 1.24 at 56 engines. There most variants
    have two engines and end together at half time, and all their engines would then crowd onto those that had one.
    Elsewhere it changes little (1.16 -> 1.18 at 64).
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
    """How many of `waiting` draws the next shard takes when `engines` work on the variant."""
    fair = math.ceil(waiting / (max(engines, 1) * SHARDS_PER_ENGINE))
    return max(1, min(waiting, max(smallest, min(largest, fair))))


def share_engines(work: Mapping[Shape, float], engines: int) -> dict[Shape, int]:
    """Share out `engines` among shapes in proportion to their work: each goes to the shape with most work per engine.

    A shape counts as having `ROUNDING_ALLOWANCE` engines more than it has (a divisor method; with 0 it would be
    Adams'). A shape that lacks hardly more than that ends a little late, which costs less than an engine that has to
    start anew because its shape is done early. With fewer engines than shapes, those with the least work get none until
    the engines of another run out of work.
    """
    by_size = sorted((shape for shape, tokens in work.items() if tokens > 0), key=lambda shape: -work[shape])
    shares = dict.fromkeys(work, 0) | dict.fromkeys(by_size[:engines], 1)
    if len(by_size) < engines:
        # Rounded so, the shares add up to `engines` at most; the last few are assigned one by one.
        divisor = sum(work.values()) / (engines - len(by_size))
        shares |= {shape: max(1, math.ceil(work[shape] / divisor - ROUNDING_ALLOWANCE)) for shape in by_size}
    for _ in range(engines - sum(shares.values()) if by_size else 0):
        shares[max(by_size, key=lambda shape: (work[shape] / (shares[shape] + ROUNDING_ALLOWANCE), -work[shape]))] += 1
    return shares


def pruners_wanted(patches: int, slots: int, supplied: int) -> int:
    """How many devices should prune when `patches` are to be made, and `supplied` devices have a variant to evaluate.

    The others would idle, so at the start all of them prune, and later a share. Pays from 16 engines: 1.10 -> 1.06 at
    16, 1.17 -> 1.09 at 32, 1.28 -> 1.18 at 64; but not at 56 (1.22 -> 1.24).
    """
    return min(patches, max(math.ceil(slots / PRUNERS_SHARE), slots - supplied))


def share_out(passes: Mapping[str, tuple[Pass, ...]], pruners: int, most: int) -> list[list[str]]:
    """Divide patches into prunings: together what a pass connects, in halves until every pruner has something to do.

    `passes`: patch -> the passes that it can share. A pruning has `most` patches at most. A half shares as much as it
    can: patches with the same passes stay beside each other.
    """
    leader: dict[Pass, Pass] = {}

    def find(one: Pass) -> Pass:
        while leader.setdefault(one, one) != one:
            one = leader[one]
        return one

    for needed in passes.values():
        for other in needed[1:]:
            leader[find(other)] = find(needed[0])
    groups: dict[Pass | str, list[str]] = {}
    for patch, needed in passes.items():
        groups.setdefault(find(needed[0]) if needed else patch, []).append(patch)
    tasks = [sorted(group, key=passes.__getitem__) for group in groups.values()]
    while tasks and (length := len(longest := max(tasks, key=len))) > 1 and (length > most or len(tasks) < pruners):
        tasks.remove(longest)
        tasks += [longest[: length // 2], longest[length // 2 :]]
    return tasks
