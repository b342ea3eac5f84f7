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
    """The devices of the cluster."""

    cpus: int
    """How many workers without a GPU fit: one a core, unless each of them takes several."""
    node_gpus: tuple[int, ...]
    """The number of GPUs of each node."""
    node_cpus: tuple[int, ...] = ()
    """The number of CPUs of each node; may be left out where there is one node."""
    node_names: tuple[str, ...] = ()
    """The backend's name of each node; may be left out where there is one node."""

    @property
    def gpus(self) -> int:
        return sum(self.node_gpus)

    @property
    def nodes(self) -> int:
        return len(self.node_gpus)

    def groups(self, size: int) -> int:
        """How many groups of `size` GPUs fit, each group within one node."""
        return sum(gpus // size for gpus in self.node_gpus)

    def groups_of(self, size: int) -> dict[str, int]:
        """Node -> its groups of `size` GPUs; its CPUs where no node has a GPU. Empty if the nodes have no names."""
        if self.gpus:
            return {name: gpus // size for name, gpus in zip(self.node_names, self.node_gpus, strict=False)}
        return dict(zip(self.node_names, self.node_cpus, strict=False))


class Backend(Protocol):
    """Starts worker processes, gives them tasks, and reports what happens to them as events.

    A call for a worker that is lost, or unknown, does nothing: the caller may not have polled its `WorkerLost` yet.
    """

    def devices(self) -> Devices: ...

    def start(self, worker: str, recipe: Recipe, gpus: int, avoid: Sequence[str] = ()) -> None:
        """Start a worker in the background, on no node of `avoid`; `WorkerReady` or `WorkerLost` follows.

        If no other node could ever host it, it is lost at once, by a failure of kind "source" that names no node.
        """
        ...

    def assign(self, worker: str, task: Task) -> None:
        """Give a worker a task; its reports follow, and end with `TaskEnded`, `TaskFailed` or `WorkerLost`."""
        ...

    def retire(self, worker: str) -> None:
        """Ask a worker to commit what is finished and close; `WorkerLost` follows when it has ended."""
        ...

    def kill(self, worker: str, failure: Failure) -> None:
        """Kill a worker at once; `WorkerLost` with this failure follows."""
        ...

    def poll(self, seconds: float) -> Sequence[Event]:
        """The events since the last call; waits up to `seconds` for one."""
        ...

    def close(self) -> None:
        """End everything that is still running."""
        ...
