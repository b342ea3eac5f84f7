"""The workers as the core knows them, indexed by what the core asks on every event. No decisions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.scheduler.events import Order, Role
from workers.messages import Shape


class Life(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"


@dataclass
class WorkerState:
    """What the core knows of one worker process. Change `life` through `Fleet.become` only: it keeps the indexes."""

    worker: str
    role: Role
    started: float
    since: float
    """When it was last heard of."""
    shape: Shape | None = None
    life: Life = Life.STARTING
    patch_id: str | None = None
    """The weights an engine holds, or has been told to take."""
    tasks: dict[str, Order] = field(default_factory=dict)
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
        self._by_life: dict[tuple[Role, Life], dict[str, WorkerState]] = {(r, life): {} for r in Role for life in Life}
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
        self._by_life[known.role, known.life][known.worker] = known
        if known.role is Role.ENGINE:
            assert known.shape is not None
            self.shapes[known.shape] = self.shapes.get(known.shape, 0) + 1

    def remove(self, worker: str) -> WorkerState | None:
        """Forget a worker; None if it is not known."""
        known = self._all.pop(worker, None)
        if known is not None:
            self.take_weights(known, None)
            if known.life is not Life.CLOSING:
                self._leave_shape(known)
            del self._by_life[known.role, known.life][worker]
        return known

    def become(self, known: WorkerState, life: Life) -> None:
        """Let a worker enter another state of life."""
        if life is Life.CLOSING and known.life is not Life.CLOSING:
            self._leave_shape(known)
        del self._by_life[known.role, known.life][known.worker]
        known.life = life
        self._by_life[known.role, life][known.worker] = known

    def take_weights(self, known: WorkerState, patch_id: str | None) -> None:
        """Note which weights an engine holds from now on; None for none that count."""
        if known.patch_id is not None:
            self.engines_of[known.patch_id] -= 1
        if patch_id is not None:
            self.engines_of[patch_id] = self.engines_of.get(patch_id, 0) + 1
        known.patch_id = patch_id

    def of(self, role: Role, *lives: Life) -> list[WorkerState]:
        """The workers of a role in any of these states."""
        return [known for life in lives for known in self._by_life[role, life].values()]

    def idle(self, role: Role) -> list[WorkerState]:
        return list(self._by_life[role, Life.IDLE].values())

    def count(self, role: Role) -> int:
        return sum(len(self._by_life[role, life]) for life in Life)

    def any(self, life: Life) -> bool:
        """Whether any worker is in this state."""
        return any(self._by_life[role, life] for role in Role)

    def _leave_shape(self, known: WorkerState) -> None:
        if known.shape is not None:
            self.shapes[known.shape] -= 1
            if not self.shapes[known.shape]:
                del self.shapes[known.shape]
