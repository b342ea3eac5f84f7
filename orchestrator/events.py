"""What the core hears and what it orders: plain values, so that a run can be logged, replayed and tested."""

from dataclasses import dataclass
from enum import StrEnum

from workers.messages import DrawKey, Facts, Failure, FailureRow, Report, Shape, Shard, Task


class Role(StrEnum):
    """What a worker is for."""

    ENGINE = "engine"
    PRUNE = "prune"
    GRADE = "grade"


@dataclass(frozen=True)
class WorkerReady:
    worker: str
    facts: Facts


@dataclass(frozen=True)
class WorkerLost:
    """The worker's process is gone, or it said that it cannot be trusted; it has been discarded."""

    worker: str
    failure: Failure


@dataclass(frozen=True)
class Reported:
    worker: str
    report: Report


@dataclass(frozen=True)
class TaskEnded:
    worker: str
    task_id: str


@dataclass(frozen=True)
class TaskFailed:
    """The task failed and its worker is well."""

    worker: str
    task_id: str
    failure: Failure


@dataclass(frozen=True)
class Recounted:
    """The answer to `Recount`: which of the shard's draws the store does not hold."""

    task_id: str
    missing: frozenset[DrawKey]


@dataclass(frozen=True)
class Tick:
    """Time has passed; nothing else happened."""


@dataclass(frozen=True)
class StopAsked:
    reason: str


Event = WorkerReady | WorkerLost | Reported | TaskEnded | TaskFailed | Recounted | Tick | StopAsked


@dataclass(frozen=True)
class StartWorker:
    worker: str
    role: Role
    shape: Shape | None = None
    patch_id: str | None = None
    """For an engine whose shape is not the model's own: a patch that shows it."""


@dataclass(frozen=True)
class Assign:
    worker: str
    task: Task


@dataclass(frozen=True)
class Recount:
    """Find out which draws of a lost worker's shard had reached the store."""

    shard: Shard


@dataclass(frozen=True)
class RecordFailures:
    rows: tuple[FailureRow, ...]


@dataclass(frozen=True)
class Retire:
    """Ask a worker to commit what it has and close."""

    worker: str


@dataclass(frozen=True)
class Discard:
    """Kill a worker at once."""

    worker: str
    failure: Failure


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do, or nothing more can be done."""

    reason: str


Command = StartWorker | Assign | Recount | RecordFailures | Retire | Discard | Finish
