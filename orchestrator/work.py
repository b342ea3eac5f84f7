"""The state of a sweep as the core holds it: patches, draws and gradings that are owed, and workers. No decisions."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from orchestrator.events import Role
from workers.messages import Context, DrawKey, Failure, Gold, Item, PruneTask, Shape, Shard, Task


@dataclass(frozen=True)
class Policy:
    """Every number that decides about retries and time, with its reason."""

    engines: int = 1
    """Engines at most at a time."""
    slots: int = 2
    """Devices that engines and prune workers share."""
    attempts: int = 3
    """Losses of a draw that travels alone, of a patch or of a grading, before it is given up."""
    start_seconds: float = 900.0
    """A large model loads for minutes; a worker that is not ready after this is discarded."""
    silence_seconds: float = 300.0
    """A worker at work reports every few seconds; after this silence it hangs."""
    prune_seconds: float = 3600.0
    """Pruning reports nothing until it is done: SparseGPT on a large model takes its time."""
    backoff_seconds: float = 5.0
    """Wait before a failed patch is tried again, doubling: a full disk or a lost mount needs a moment."""
    failed_starts: int = 3
    """Workers of one role lost in a row before any was ready: something is wrong that more attempts will not mend."""
    smallest_shard: int = 16
    largest_shard: int = 512


@dataclass(frozen=True)
class Piece:
    """Draws that travel together, and how often they were lost together."""

    items: tuple[Item, ...]
    losses: int = 0

    @property
    def tokens(self) -> int:
        """Expected thinking tokens at most: what is still to be generated up to the largest limit."""
        return sum(
            max(item.job.limits) - (len(item.job.prior.token_ids) if item.job.prior else 0) for item in self.items
        )


class Patched(StrEnum):
    OWED = "owed"
    MAKING = "making"
    HELD = "held"
    FAILED = "failed"


@dataclass
class PatchWork:
    """One patch: in the store, or to be made."""

    task: PruneTask
    state: Patched
    attempts: int = 0
    not_before: float = 0.0
    refusals: int = 0
    """Engines that were lost because they could not prove that they hold it."""


@dataclass
class ContextWork:
    """The owed draws of one context, and whether its grades are up to date."""

    context: Context
    golds: tuple[Gold, ...]
    order: int
    running: dict[str, Piece] = field(default_factory=dict)
    """Task id -> the piece it evaluates, without the draws that are committed already."""
    ungraded: bool = False
    grading: str | None = None
    grade_losses: int = 0
    draws: int = 0
    """Draws waiting."""
    tokens: int = 0
    """Expected tokens of the draws waiting."""
    _waiting: deque[Piece] = field(default_factory=deque)

    def settled(self) -> bool:
        return not (self.draws or self.running or self.ungraded or self.grading)

    def add(self, piece: Piece) -> None:
        """Let a piece wait for an engine."""
        self._waiting.append(piece)
        self._count(piece, 1)

    def take(self, most: int) -> Piece:
        """Remove the next piece, at most `most` draws of it. Requires that something waits."""
        piece = self._waiting.popleft()
        self._count(piece, -1)
        if len(piece.items) > most:
            rest = Piece(piece.items[most:], piece.losses)
            self._waiting.appendleft(rest)
            self._count(rest, 1)
            piece = Piece(piece.items[:most], piece.losses)
        return piece

    def drain(self) -> list[Item]:
        """Remove everything that waits."""
        items = [item for piece in self._waiting for item in piece.items]
        self._waiting.clear()
        self.draws = self.tokens = 0
        return items

    def _count(self, piece: Piece, sign: int) -> None:
        self.draws += sign * len(piece.items)
        self.tokens += sign * piece.tokens


class Life(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"


@dataclass
class WorkerState:
    """What the core knows of one worker process."""

    worker: str
    role: Role
    since: float
    """When it was last heard of."""
    shape: Shape | None = None
    life: Life = Life.STARTING
    patch_id: str | None = None
    """The weights an engine holds, or has been told to take."""
    task: Task | None = None


@dataclass
class Tally:
    """Running totals, for the progress display."""

    owed: int = 0
    committed: int = 0
    failed: int = 0
    patches_owed: int = 0
    patches_made: int = 0
    trace_tokens: int = 0
    answer_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    swaps: int = 0
    swap_seconds: float = 0.0
    graded: int = 0
    engines_started: int = 0
    workers_lost: int = 0


class State:
    """Everything that the core remembers."""

    def __init__(self, policy: Policy, patches: Iterable[PatchWork], contexts: Iterable[ContextWork]) -> None:
        self.policy = policy
        self.patches = {patch.task.patch_id: patch for patch in patches}
        self.contexts = {work.context.context_id: work for work in contexts}
        self.by_patch: dict[str, list[ContextWork]] = {}
        for work in self.contexts.values():
            self.by_patch.setdefault(work.context.patch_id, []).append(work)
        self.workers: dict[str, WorkerState] = {}
        self.tally = Tally(
            owed=sum(work.draws for work in self.contexts.values()),
            patches_owed=sum(patch.state is Patched.OWED for patch in self.patches.values()),
        )
        self.stopping: str | None = None
        self.recounting: dict[str, tuple[Shard, Piece, Failure]] = {}
        """Task id -> the shard of a lost worker, what of it was not reported, and why the worker was lost."""
        self.failed_starts: dict[Role, int] = dict.fromkeys(Role, 0)
        self.watched = 0.0
        self._names = count(1)

    def name(self, prefix: str) -> str:
        """A name that this sweep has not used."""
        return f"{prefix}-{next(self._names)}"

    def dead(self, role: Role) -> bool:
        """Whether workers of a role have failed to start so often that no more are started."""
        return self.failed_starts[role] >= self.policy.failed_starts

    def idle(self, role: Role) -> list[WorkerState]:
        return [s for s in self.workers.values() if s.role is role and s.life is Life.IDLE]

    def wanted(self, patch: PatchWork) -> bool:
        """Whether draws wait for a patch."""
        return any(work.draws for work in self.by_patch.get(patch.task.patch_id, ()))


def key(context: Context, item: Item) -> DrawKey:
    """The name of the draw that `item` owes."""
    return (context.context_id, item.prompt_id, item.job.seed)
