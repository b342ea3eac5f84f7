"""Steps that cases of the core have in common."""

from collections.abc import Sequence

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    MissingFound,
    Role,
    ShardNumbers,
    Tick,
)
from orchestrator.scheduler.work import Policy
from tests.support.builders import (
    Hand,
    of_kind,
    ready,
    started,
)
from workers.failure import Failure, FailureKind

LOST = Failure(FailureKind.ENGINE_LOST, "the engine died")
POLICY = Policy(engines=1, slots=2, smallest_shard=16, largest_shard=16)


def shard_of(commands: list) -> tuple[str, ShardNumbers]:
    """The one shard that `commands` hand out, and to whom."""
    (given,) = [c for c in of_kind(commands, Assign) if isinstance(c.task, ShardNumbers)]
    return given.worker, given.task


def missing(shard: ShardNumbers, numbers: Sequence[int]) -> MissingFound:
    return MissingFound(shard.task_id, frozenset(numbers))


def start_engine(core: Core, commands: list | None = None) -> tuple[Hand, str, ShardNumbers]:
    hand = Hand(core)
    (engine,) = started(hand(Tick()), Role.ENGINE)
    worker, shard = shard_of(hand(ready(engine)))
    assert worker == engine
    return hand, worker, shard
