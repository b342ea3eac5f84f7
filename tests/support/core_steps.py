"""Steps that cases of the core have in common."""

from collections.abc import Callable, Sequence

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Event,
    FindMissing,
    MissingFound,
    Reported,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
    Tick,
    WorkerLost,
)
from orchestrator.scheduler.work import Policy
from tests.support.builders import (
    Hand,
    committed,
    of_kind,
    ready,
    started,
)
from workers.failure import Failure, FailureKind
from workers.messages import Graded, GradeTask, PatchMade, PruneTask, TaskEnded

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


def made(worker: str, task: PruneTask) -> list[Event]:
    """A pruner makes all patches of its task."""
    patches = [Reported(worker, PatchMade(task.task_id, one.patch_id, 0.5, 1.0)) for one in task.patches]
    return [*patches, Reported(worker, TaskEnded(task.task_id))]


def serve(hand: Hand, until: Callable[[], bool], crash_on: frozenset[int] = frozenset()) -> None:
    """Be a fleet that does everything well, except that an engine given a draw of `crash_on` dies uncommitted."""
    todo = hand(Tick())
    for _ in range(500):
        if until():
            return
        events = []
        for command in todo:
            match command:
                case StartWorker(worker):
                    events.append(ready(worker))
                case Assign(worker, ShardNumbers() as shard) if crash_on.intersection(shard.numbers):
                    events.append(WorkerLost(worker, LOST))
                case Assign(worker, ShardNumbers() as shard):
                    events += [
                        Reported(worker, committed(shard, shard.numbers)),
                        Reported(worker, TaskEnded(shard.task_id)),
                    ]
                case Assign(worker, PruneTask() as task):
                    events += made(worker, task)
                case Assign(worker, GradeTask() as task):
                    events.append(Reported(worker, Graded(task.task_id, task.context_id, 1)))
                    events.append(Reported(worker, TaskEnded(task.task_id)))
                case FindMissing(shard):
                    events.append(missing(shard, shard.numbers))
                case Retire(worker):
                    events.append(WorkerLost(worker, Failure(FailureKind.RETIRED, "closed as asked")))
        todo = [command for event in events or [Tick()] for command in hand(event, after=1.0)]
    raise AssertionError("it does not come to an end")
