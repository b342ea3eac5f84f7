"""What the core hears and what it orders: plain values, so that a run can be logged, replayed and tested.

The core knows draws by their number within a context (see plan.py), and so stays small however many draws there are and
however long their prompts; the driver turns numbers into the items that workers need.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from workers.failure import Failure
from workers.messages import GradeTask, PruneTask, Report, Shape, WorkerInfo


class Role(StrEnum):
    """What a worker is for."""

    ENGINE = "engine"
    PRUNE = "prune"
    GRADE = "grade"


@dataclass(frozen=True)
class ShardNumbers:
    """Draws of one context, by number: what will be a `Shard` when a worker gets it."""

    task_id: str
    context_id: str
    numbers: Sequence[int]


WorkerTask = PruneTask | ShardNumbers | GradeTask


@dataclass(frozen=True)
class WorkerReady:
    worker: str
    facts: WorkerInfo


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
class MissingFound:
    """The answer to `FindMissing`: which of the slice's draws the store does not hold."""

    task_id: str
    missing: frozenset[int]


@dataclass(frozen=True)
class NodeDraining:
    """The machines of these workers will be taken away soon (a spot instance's notice, say)."""

    workers: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed; nothing else happened."""


@dataclass(frozen=True)
class StopRequested:
    reason: str


Event = WorkerReady | WorkerLost | Reported | MissingFound | NodeDraining | Tick | StopRequested


@dataclass(frozen=True)
class StartWorker:
    worker: str
    role: Role
    shape: Shape | None = None
    """Of an engine."""


@dataclass(frozen=True)
class Assign:
    worker: str
    task: WorkerTask


@dataclass(frozen=True)
class FindMissing:
    """Find out which draws of a lost worker's slice had reached the store."""

    slice: ShardNumbers


@dataclass(frozen=True)
class RecordFailures:
    """Write down draws that are given up."""

    context_id: str
    numbers: tuple[int, ...]
    failure: Failure
    attempts: int


@dataclass(frozen=True)
class Retire:
    """Ask a worker to commit what it has and close."""

    worker: str


@dataclass(frozen=True)
class Kill:
    """Kill a worker at once."""

    worker: str
    failure: Failure


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do, or nothing more can be done."""

    reason: str


Command = StartWorker | Assign | FindMissing | RecordFailures | Retire | Kill | Finish
