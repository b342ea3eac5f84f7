"""The workers as the core knows them, with indexes for what it asks on every event. No decisions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.scheduler.events import Role, WorkerTask
from workers.messages import Shape


class Phase(StrEnum):
    """How far a worker has come in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"


@dataclass
class WorkerState:
    """What the core knows of one worker process. Only transitions.py changes it."""

    name: str
    role: Role
    started: float
    since: float
    """When it last reported or changed its phase."""
    shape: Shape | None = None
    """Of an engine."""
    avoid: tuple[str, ...] = ()
    """Machines that it was not to be started on."""
    node: str = ""
    """The machine that it runs on, once it is ready; empty if there is only one."""
    phase: Phase = Phase.STARTING
    patch_id: str | None = None
    """The weights that an engine holds, or has been told to take."""
    tasks: dict[str, WorkerTask] = field(default_factory=dict)
    """Tasks that it was given and has not ended, oldest first. Only engines have several, since they are fed ahead."""
    hungry: bool = False
    """The engine could take further draws of the variant that it holds."""
    tokens: int = 0
    """How many tokens the engine had generated when it last reported."""
    progressed: float = 0.0
    """When it last made progress: committed draws, or reported a new number of tokens."""
    named_nan: bool = False
    """The engine reported which draws gave NaN, before it died of them."""


class Fleet:
    """Every worker that was started and has not been lost."""

    def __init__(self) -> None:
        self._all: dict[str, WorkerState] = {}
        self._by_phase: dict[tuple[Role, Phase], dict[str, WorkerState]] = {
            (role, phase): {} for role in Role for phase in Phase
        }
        self.engines_of: dict[str, int] = {}
        """Patch id -> engines that hold it or have been told to take it."""
        self.shapes: dict[Shape, int] = {}
        """Shape -> engines of it that are not closing."""

    def __iter__(self) -> Iterator[WorkerState]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, name: str) -> WorkerState | None:
        return self._all.get(name)

    def add(self, worker: WorkerState) -> None:
        self._all[worker.name] = worker
        self._by_phase[worker.role, worker.phase][worker.name] = worker
        if worker.role is Role.ENGINE:
            assert worker.shape is not None
            self.shapes[worker.shape] = self.shapes.get(worker.shape, 0) + 1

    def remove(self, worker: WorkerState) -> None:
        self.set_patch(worker, None)
        if worker.phase is not Phase.CLOSING:
            self._leave_shape(worker)
        del self._all[worker.name]
        del self._by_phase[worker.role, worker.phase][worker.name]

    def set_phase(self, worker: WorkerState, phase: Phase) -> None:
        if phase is Phase.CLOSING and worker.phase is not Phase.CLOSING:
            self._leave_shape(worker)
        del self._by_phase[worker.role, worker.phase][worker.name]
        worker.phase = phase
        self._by_phase[worker.role, phase][worker.name] = worker

    def set_patch(self, worker: WorkerState, patch_id: str | None) -> None:
        """Set the patch that an engine holds or is to take; None if it no longer counts for any."""
        if worker.patch_id is not None:
            self.engines_of[worker.patch_id] -= 1
        if patch_id is not None:
            self.engines_of[patch_id] = self.engines_of.get(patch_id, 0) + 1
        worker.patch_id = patch_id

    def of(self, role: Role, *phases: Phase) -> list[WorkerState]:
        """The workers of a role that are in any of these phases."""
        return [worker for phase in phases for worker in self._by_phase[role, phase].values()]

    def idle(self, role: Role) -> list[WorkerState]:
        return list(self._by_phase[role, Phase.IDLE].values())

    def count(self, role: Role) -> int:
        return sum(len(self._by_phase[role, phase]) for phase in Phase)

    def any(self, phase: Phase) -> bool:
        """Whether any worker is in this phase."""
        return any(self._by_phase[role, phase] for role in Role)

    def _leave_shape(self, worker: WorkerState) -> None:
        if worker.shape is not None:
            self.shapes[worker.shape] -= 1
            if not self.shapes[worker.shape]:
                del self.shapes[worker.shape]
