"""The workers as the core knows them, indexed by what the core asks on every event. No decisions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.scheduler.events import Role, WorkerTask
from workers.messages import Shape


class Phase(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"


@dataclass
class WorkerState:
    """What the core knows of one worker process. Change `phase` by `Fleet.set_phase` only: it keeps the indexes."""

    worker: str
    role: Role
    started: float
    since: float
    """When it was last heard of."""
    shape: Shape | None = None
    phase: Phase = Phase.STARTING
    patch_id: str | None = None
    """The weights an engine holds, or has been told to take."""
    tasks: dict[str, WorkerTask] = field(default_factory=dict)
    """What it was told to do and has not ended, in that order. Only an engine has more than one: it is fed ahead."""
    hungry: bool = False
    """An engine that could take further draws of the variant it holds."""
    tokens: int = 0
    """What the engine had generated when it last told."""
    progressed: float = 0.0
    """When that number last grew."""


class Fleet:
    """Every worker that was started and has not been lost."""

    def __init__(self) -> None:
        self._all: dict[str, WorkerState] = {}
        self._by_life: dict[tuple[Role, Phase], dict[str, WorkerState]] = {
            (r, phase): {} for r in Role for phase in Phase
        }
        self.engines_of: dict[str, int] = {}
        """Patch id -> engines that hold it or are on their way to it."""
        self.shapes: dict[Shape, int] = {}
        """Shape -> engines of it that are not closing."""

    def __iter__(self) -> Iterator[WorkerState]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, worker: str) -> WorkerState | None:
        return self._all.get(worker)

    def add(self, known: WorkerState) -> None:
        self._all[known.worker] = known
        self._by_life[known.role, known.phase][known.worker] = known
        if known.role is Role.ENGINE:
            assert known.shape is not None
            self.shapes[known.shape] = self.shapes.get(known.shape, 0) + 1

    def remove(self, worker: str) -> WorkerState | None:
        """Forget a worker; None if it is not known."""
        known = self._all.pop(worker, None)
        if known is not None:
            self.set_patch(known, None)
            if known.phase is not Phase.CLOSING:
                self._leave_shape(known)
            del self._by_life[known.role, known.phase][worker]
        return known

    def set_phase(self, known: WorkerState, phase: Phase) -> None:
        """Let a worker enter another state of life."""
        if phase is Phase.CLOSING and known.phase is not Phase.CLOSING:
            self._leave_shape(known)
        del self._by_life[known.role, known.phase][known.worker]
        known.phase = phase
        self._by_life[known.role, phase][known.worker] = known

    def set_patch(self, known: WorkerState, patch_id: str | None) -> None:
        """Note which weights an engine holds from now on; None for none that count."""
        if known.patch_id is not None:
            self.engines_of[known.patch_id] -= 1
        if patch_id is not None:
            self.engines_of[patch_id] = self.engines_of.get(patch_id, 0) + 1
        known.patch_id = patch_id

    def of(self, role: Role, *lives: Phase) -> list[WorkerState]:
        """The workers of a role in any of these states."""
        return [known for phase in lives for known in self._by_life[role, phase].values()]

    def idle(self, role: Role) -> list[WorkerState]:
        return list(self._by_life[role, Phase.IDLE].values())

    def count(self, role: Role) -> int:
        return sum(len(self._by_life[role, phase]) for phase in Phase)

    def any(self, phase: Phase) -> bool:
        """Whether any worker is in this state."""
        return any(self._by_life[role, phase] for role in Role)

    def _leave_shape(self, known: WorkerState) -> None:
        if known.shape is not None:
            self.shapes[known.shape] -= 1
            if not self.shapes[known.shape]:
                del self.shapes[known.shape]
