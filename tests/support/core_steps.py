"""Steps that cases of the core have in common."""

from collections.abc import Sequence

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Recounted,
    Role,
    Slice,
    Tick,
)
from orchestrator.scheduler.work import Policy
from tests.support.builders import (
    Hand,
    of_kind,
    ready,
    started,
)
from workers.failure import Failure

LOST = Failure("engine-lost", "the engine died")
POLICY = Policy(engines=1, slots=2, smallest_shard=16, largest_shard=16)


def shard_of(commands: list) -> tuple[str, Slice]:
    """The one shard that `commands` hand out, and to whom."""
    (given,) = [c for c in of_kind(commands, Assign) if isinstance(c.task, Slice)]
    return given.worker, given.task


def missing(shard: Slice, numbers: Sequence[int]) -> Recounted:
    return Recounted(shard.task_id, frozenset(numbers))


def start_engine(core: Core, commands: list | None = None) -> tuple[Hand, str, Slice]:
    hand = Hand(core)
    (engine,) = started(hand(Tick()), Role.ENGINE)
    worker, shard = shard_of(hand(ready(engine)))
    assert worker == engine
    return hand, worker, shard
