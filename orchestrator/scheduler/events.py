"""Events that go into the core and commands that come out: plain values, so that a run can be logged and replayed.

The core knows a draw by its number within its context (see plan/plan.py), so it needs little memory however many draws
there are and however long their prompts; the driver turns numbers into the items that workers need. Workers go by name.
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
    """Draws of one context, by number; the driver makes a `Shard` of them for the worker."""

    task_id: str
    context_id: str
    numbers: Sequence[int]


WorkerTask = PruneTask | ShardNumbers | GradeTask
"""What the core gives to a worker."""


@dataclass(frozen=True)
class WorkerReady:
    """A worker has started and can take tasks."""

    worker: str
    facts: WorkerInfo
    node: str = ""
    """The backend's name of the machine that it runs on; empty if there is only one."""


@dataclass(frozen=True)
class WorkerLost:
    """The worker's process is gone, or was ended because the worker can no longer be trusted."""

    worker: str
    failure: Failure
    node: str = ""
    """Of a worker that could not be built: the backend's name of its machine; empty if no machine was left for it."""


@dataclass(frozen=True)
class Reported:
    """A worker sent a report."""

    worker: str
    report: Report


@dataclass(frozen=True)
class MissingFound:
    """The answer to `FindMissing`: which of the shard's draws are not in the store."""

    task_id: str
    missing: frozenset[int]


@dataclass(frozen=True)
class NodeDraining:
    """The workers' node will soon be taken away, for example after a spot instance's notice."""

    workers: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed and nothing else happened."""


@dataclass(frozen=True)
class StopRequested:
    """The sweep is to end before everything is done; what is left stays owed."""

    reason: str


Event = WorkerReady | WorkerLost | Reported | MissingFound | NodeDraining | Tick | StopRequested


@dataclass(frozen=True)
class StartWorker:
    """Start a worker process."""

    worker: str
    role: Role
    shape: Shape | None = None
    """Of an engine."""
    avoid: tuple[str, ...] = ()
    """Machines that it must not run on."""


@dataclass(frozen=True)
class Assign:
    """Give a worker a task."""

    worker: str
    task: WorkerTask


@dataclass(frozen=True)
class FindMissing:
    """Find out which of these draws, whose shard ended without reporting them, are not in the store."""

    shard: ShardNumbers


@dataclass(frozen=True)
class RecordFailures:
    """Record draws that are given up."""

    context_id: str
    numbers: tuple[int, ...]
    failure: Failure
    attempts: int


@dataclass(frozen=True)
class Retire:
    """Ask a worker to commit what it has and to close."""

    worker: str


@dataclass(frozen=True)
class Kill:
    """End a worker's process at once."""

    worker: str
    failure: Failure


@dataclass(frozen=True)
class Finish:
    """The sweep ends: nothing is left to do, or nothing more can be done. All workers are gone."""

    reason: str


Command = StartWorker | Assign | FindMissing | RecordFailures | Retire | Kill | Finish
