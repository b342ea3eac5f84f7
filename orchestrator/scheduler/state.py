"""The state of a sweep as the core holds it, with indexes that answer what is asked on every event. No decisions."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from orchestrator.scheduler.events import Role
from orchestrator.scheduler.fleet import Fleet, Phase, WorkerState
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, Policy, RunningShard
from workers.failure import Failure
from workers.messages import Shape


@dataclass
class Counters:
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


@dataclass(frozen=True)
class PendingCheck:
    """A slice whose end was not in order, until the store has been asked what of it is done."""

    context_id: str
    numbers: tuple[int, ...]
    losses: int
    failure: Failure
    blameless: bool
    """Its worker was asked to close: nothing was lost."""
    worker_lost: bool


class SweepState:
    """Everything that the core remembers. After any change to a `ContextWork` or to a patch's state, call `note`."""

    def __init__(self, policy: Policy, patches: Iterable[PatchWork], contexts: Iterable[ContextWork]) -> None:
        self.policy = policy
        self.patches = {patch.task.patch_id: patch for patch in patches}
        self.contexts = {work.context.context_id: work for work in contexts}
        self.by_patch: dict[str, list[ContextWork]] = {}
        for work in self.contexts.values():
            self.by_patch.setdefault(work.context.patch_id, []).append(work)
        self.fleet = Fleet()
        self.counters = Counters(
            owed=sum(work.draws for work in self.contexts.values()),
            patches_owed=sum(patch.state is PatchState.OWED for patch in self.patches.values()),
        )
        self.work_of: dict[str, ContextWork] = {}
        """Task id of a running shard or grading -> its context."""
        self.stopping: str | None = None
        self.stopped = 0.0
        """When that was asked for."""
        self.pending_checks: dict[str, PendingCheck] = {}
        self.failed_starts: dict[Role, int] = dict.fromkeys(Role, 0)
        self.failed_at: dict[Role, float] = dict.fromkeys(Role, 0.0)
        self.store_losses = 0
        """Tasks in a row that failed because the store could not be used."""
        self.watched = 0.0
        self.staffed = False
        """Whether the fleet has been looked at since anything happened that could call for other workers."""
        self.unsettled: set[str] = set()
        """Contexts that owe something."""
        self.ungraded: set[str] = set()
        """Contexts that could be graded now."""
        self.ready: dict[Shape, dict[str, None]] = {}
        """Shape -> patches that are held and that draws wait for, in no order that matters."""
        self.coming: dict[str, None] = {}
        """Patches that draws wait for and that are not made."""
        self.hungry: dict[str, dict[str, WorkerState]] = {}
        """Patch -> engines at work on it that could take more."""
        self.given: dict[str, float] = {}
        """Patch -> expected tokens that its engines have been given and have not committed."""
        self._names = count(1)
        for work in self.contexts.values():
            self.note(work)

    def note(self, work: ContextWork) -> None:
        """Bring the indexes up to date with a context and its patch."""
        name, patch_id, shape = work.context.context_id, work.context.patch_id, work.context.shape
        (self.unsettled.discard if work.settled() else self.unsettled.add)(name)
        (self.ungraded.add if work.ungraded and work.grading is None else self.ungraded.discard)(name)
        wanted = self.wanted(patch_id)
        state = self.patches[patch_id].state
        ready = self.ready.setdefault(shape, {})
        if wanted and state is PatchState.HELD:
            ready[patch_id] = None
        else:
            ready.pop(patch_id, None)
        if wanted and state in (PatchState.OWED, PatchState.MAKING):
            self.coming[patch_id] = None
        else:
            self.coming.pop(patch_id, None)

    def begin(self, work: ContextWork, task_id: str, numbers: tuple[int, ...], losses: int) -> None:
        """Note that an engine has been given draws."""
        run = work.running[task_id] = RunningShard(numbers, set(numbers), losses, float(work.expected(numbers).sum()))
        self._give(work, run.tokens)

    def settle(self, work: ContextWork, task_id: str, done: Iterable[int]) -> list[int]:
        """Note that draws of a slice need no more; returns those that had not been noted before."""
        run = work.running.get(task_id)
        if run is None:
            return []
        before, settled = run.tokens, [number for number in done if number in run.left]
        run.left.difference_update(settled)
        self._give(work, run.tokens - before)
        return settled

    def end(self, work: ContextWork, task_id: str) -> RunningShard:
        """Note that an engine has a slice no more; returns what is left of it."""
        run = work.running.pop(task_id)
        self._give(work, -run.tokens)
        return run

    def _give(self, work: ContextWork, tokens: float) -> None:
        patch_id = work.context.patch_id
        total = self.given.pop(patch_id, 0.0) + tokens
        if total > 0.5:  # a draw counts for one at least: what is less is rounding
            self.given[patch_id] = total

    def note_patch(self, patch_id: str) -> None:
        for work in self.by_patch.get(patch_id, ()):
            self.note(work)

    def wanted(self, patch_id: str) -> bool:
        """Whether draws wait for a patch."""
        return any(work.fresh or work.lost for work in self.by_patch.get(patch_id, ()))

    def to_come(self, shape: Shape) -> list[str]:
        """Patches of a shape that draws wait for and that will be made."""
        coming = () if self.dead(Role.PRUNE) else self.coming
        return [name for name in coming if self.shape_of(name) == shape]

    def owed_patches(self) -> list[PatchWork]:
        """Patches that draws wait for and that nobody makes."""
        return [patch for name in self.coming if (patch := self.patches[name]).state is PatchState.OWED]

    def tokens(self, patch_id: str) -> float:
        """Expected thinking tokens of the draws that wait for a patch; at least 1."""
        return max(1.0, sum(work.tokens for work in self.by_patch[patch_id] if work.fresh or work.lost))

    def shape_of(self, patch_id: str) -> Shape:
        """The shape of a patch that some context is of."""
        return self.by_patch[patch_id][0].context.shape

    def name(self, prefix: str) -> str:
        """A name that this sweep has not used."""
        return f"{prefix}-{next(self._names)}"

    def stop(self, reason: str, now: float) -> None:
        """Note that the sweep is to end before everything is done. The first reason stands."""
        if self.stopping is None:
            self.stopping, self.stopped = reason, now

    def failing(self, role: Role) -> bool:
        """Whether workers of a role have failed to start so often that no more are started."""
        return self.failed_starts[role] >= self.policy.failed_starts

    def dead(self, role: Role) -> bool:
        """Whether no more workers of a role are started, and none is up."""
        return self.failing(role) and not self.fleet.of(role, Phase.IDLE, Phase.BUSY)

    def set_hungry(self, known: WorkerState, hungry: bool) -> None:
        """Note whether an engine at work could take more of the variant it holds."""
        known.hungry = hungry
        assert known.patch_id is not None
        group = self.hungry.setdefault(known.patch_id, {})
        if hungry:
            group[known.worker] = known
        else:
            group.pop(known.worker, None)
