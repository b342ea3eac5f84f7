"""The seam between the driver and whatever hosts the workers: Ray (ray_backend.py), or threads (local_backend.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.scheduler.events import Event
from workers.failure import Failure
from workers.messages import Task
from workers.recipes import Recipe


@dataclass(frozen=True)
class Devices:
    """What the fleet has: CPUs always, GPUs perhaps."""

    cpus: int
    node_gpus: tuple[int, ...]
    """GPUs of each node; 0 of one that has none."""

    @property
    def gpus(self) -> int:
        return sum(self.node_gpus)

    @property
    def nodes(self) -> int:
        return len(self.node_gpus)

    def groups(self, size: int) -> int:
        """How many groups of so many GPUs there are: all of a group's GPUs are of one node."""
        return sum(gpus // size for gpus in self.node_gpus)


class Backend(Protocol):
    """Starts worker processes, hands them tasks, and turns what happens to them into events.

    A worker may be lost before whoever gives the orders has heard of it: what is ordered of it meanwhile does nothing,
    and its `WorkerLost` is on its way.
    """

    def devices(self) -> Devices: ...

    def start(self, worker: str, recipe: Recipe, gpus: int) -> None:
        """Begin to start a worker; `WorkerReady` or `WorkerLost` follows."""
        ...

    def assign(self, worker: str, task: Task) -> None:
        """Hand over a task; its reports follow, `TaskEnded` or `TaskFailed` among them, or `WorkerLost`."""
        ...

    def retire(self, worker: str) -> None:
        """Ask a worker to commit what is finished and close; `WorkerLost` follows when it is gone."""
        ...

    def discard(self, worker: str, failure: Failure) -> None:
        """Kill a worker at once; `WorkerLost` with this failure follows."""
        ...

    def poll(self, seconds: float) -> Sequence[Event]:
        """What has happened; waits up to `seconds` for something to happen."""
        ...

    def close(self) -> None:
        """Let go of everything that is still running."""
        ...
