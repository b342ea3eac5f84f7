"""The state of a sweep as the core sees it, with indexes for what is asked on every event. No decisions."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from orchestrator.scheduler.events import Role
from orchestrator.scheduler.fleet import Fleet, Phase, WorkerState
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, Policy, RunningShard
from workers.failure import Failure
from workers.messages import PruneTask, Shape


@dataclass
class Counters:
    """Running totals of this run, for the progress display."""

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
    """A shard that ended without reporting all its draws, until the store has said which of them are missing."""

    context_id: str
    numbers: tuple[int, ...]
    losses: int
    failure: Failure
    blameless: bool
    """Its worker had been asked to close: the loss counts against nobody."""
    worker_lost: bool
    alone: bool
    """It had one draw."""


class SweepState:
    """Everything that the core remembers. After any change to a `ContextWork`, call `reindex`."""

    def __init__(self, policy: Policy, patches: Iterable[PatchWork], contexts: Iterable[ContextWork]) -> None:
        self.policy = policy
        self.patches = {patch.patch_id: patch for patch in patches}
        self.contexts = {work.context.context_id: work for work in contexts}
        self.by_patch: dict[str, list[ContextWork]] = {}
        for work in self.contexts.values():
            self.by_patch.setdefault(work.context.patch_id, []).append(work)
        self.work_of: dict[str, ContextWork] = {}
        """Task id of a running shard or grading -> its context."""
        self.fleet = Fleet()
        self.counters = Counters(
            owed=sum(work.waiting_draws for work in self.contexts.values()),
            patches_owed=sum(patch.state is PatchState.OWED for patch in self.patches.values()),
        )
        self.stopping: str | None = None
        """Why the sweep is to end before everything is done."""
        self.stopped_at = 0.0
        """When that was requested."""
        self.pending_checks: dict[str, PendingCheck] = {}
        """Task id of the shard -> its check."""
        self.failed_starts: dict[Role, int] = dict.fromkeys(Role, 0)
        self.failed_at: dict[Role, float] = dict.fromkeys(Role, 0.0)
        self.store_failures = 0
        """Tasks in a row that failed because the store could not be used."""
        self.avoided: dict[str, dict[str, str]] = {}
        """Model, or patch, or "" for everything -> machines that cannot do its work -> why. See nodes.py."""
        self.stranded: dict[str, str] = {}
        """Model, or patch -> why no machine is left that can do its work."""
        self.checked_at = 0.0
        """When the workers were last checked for silence."""
        self.scaled = False
        """Nothing has happened since the fleet's size was last decided that could change the decision."""
        self.unfinished: set[str] = set()
        """Contexts that owe draws or grades."""
        self.gradable: set[str] = set()
        """Contexts with answers to grade that nobody is grading."""
        self.runnable: dict[Shape, dict[str, None]] = {}
        """Shape -> patches in the store that draws wait for and that may run now, in no order that matters."""
        self.unmade: dict[str, None] = {}
        """Patches that draws wait for and that are not in the store."""
        self.hungry_engines: dict[str, dict[str, WorkerState]] = {}
        """Patch -> engines at work on it that could take more draws."""
        self.in_flight_tokens: dict[str, float] = {}
        """Patch -> expected tokens of the draws that engines have and have not committed."""
        self._names = count(1)
        for work in self.contexts.values():
            self.reindex(work)

    # --- contexts and patches -----------------------------------------------------------------------------------------

    def reindex(self, work: ContextWork) -> None:
        """Bring the indexes up to date with a context and its patch."""
        name, patch_id, shape = work.context.context_id, work.context.patch_id, work.context.shape
        (self.unfinished.discard if work.finished() else self.unfinished.add)(name)
        (self.gradable.add if work.ungraded and work.grading is None else self.gradable.discard)(name)
        waiting = self.has_waiting_draws(patch_id)
        patch = self.patches[patch_id]
        state, probed = patch.state, patch.suspected and any(other.running for other in self.by_patch[patch_id])
        runnable = self.runnable.setdefault(shape, {})
        waiting = waiting and not self.stranded.keys() & {shape.model, patch_id}
        if waiting and state is PatchState.STORED and not probed:
            runnable[patch_id] = None
        else:
            runnable.pop(patch_id, None)
        if waiting and state in (PatchState.OWED, PatchState.MAKING):
            self.unmade[patch_id] = None
        else:
            self.unmade.pop(patch_id, None)

    def set_patch_state(self, patch: PatchWork, patch_state: PatchState, task_id: str | None = None) -> None:
        """`task_id`: of the pruning that makes the patch now."""
        patch.state, patch.making = patch_state, task_id
        self.reindex_patch(patch)

    def patches_left(self, task: PruneTask) -> list[PatchWork]:
        """The patches of a pruning that are neither made nor given back."""
        patches = [self.patches[request.patch_id] for request in task.patches]
        return [patch for patch in patches if patch.making == task.task_id]

    def reindex_patch(self, patch: PatchWork) -> None:
        """Bring the indexes up to date with a patch and its contexts."""
        for work in self.by_patch.get(patch.patch_id, ()):
            self.reindex(work)

    def begin_shard(self, work: ContextWork, task_id: str, numbers: tuple[int, ...], losses: int) -> None:
        """Note that an engine has been given draws."""
        tokens, probe = float(work.expected_tokens(numbers).sum()), self.patches[work.context.patch_id].suspected
        shard = RunningShard(numbers, set(numbers), losses, tokens, probe)
        work.running[task_id], self.work_of[task_id] = shard, work
        self._add_in_flight(work, shard.tokens_left)
        self.reindex(work)

    def settle_draws(self, work: ContextWork, task_id: str, numbers: Iterable[int]) -> list[int]:
        """Note that draws of a running shard are committed or given up; returns those that were not before."""
        shard = work.running.get(task_id)
        if shard is None:
            return []
        before, settled = shard.tokens_left, [number for number in numbers if number in shard.left]
        shard.left.difference_update(settled)
        self._add_in_flight(work, shard.tokens_left - before)
        return settled

    def end_shard(self, work: ContextWork, task_id: str) -> RunningShard:
        """Note that no engine has a shard any more; returns the shard."""
        shard = work.running.pop(task_id)
        self._add_in_flight(work, -shard.tokens_left)
        return shard

    def _add_in_flight(self, work: ContextWork, tokens: float) -> None:
        patch_id = work.context.patch_id
        total = self.in_flight_tokens.pop(patch_id, 0.0) + tokens
        if total > 0.5:  # a draw counts for one token at least: what is less is rounding
            self.in_flight_tokens[patch_id] = total

    def has_waiting_draws(self, patch_id: str) -> bool:
        return any(work.fresh or work.retries for work in self.by_patch.get(patch_id, ()))

    def waiting_tokens(self, patch_id: str) -> float:
        """Expected thinking tokens of the draws that wait for a patch; at least 1."""
        works = self.by_patch[patch_id]
        return max(1.0, sum(work.waiting_tokens for work in works if work.fresh or work.retries))

    def upcoming(self, shape: Shape) -> list[str]:
        """Patches of a shape that draws wait for and that are still to be made."""
        unmade = () if self.dead(Role.PRUNE) else self.unmade
        return [patch_id for patch_id in unmade if self.shape_of(patch_id) == shape]

    def owed_patches(self) -> list[PatchWork]:
        """Patches that draws wait for and that nobody is making."""
        return [patch for name in self.unmade if (patch := self.patches[name]).state is PatchState.OWED]

    def shape_of(self, patch_id: str) -> Shape:
        """The shape of the engines that a patch needs. Some context must use the patch."""
        return self.by_patch[patch_id][0].context.shape

    # --- workers and the end ------------------------------------------------------------------------------------------

    def new_name(self, prefix: str) -> str:
        """A name for a worker or a task that this run has not used."""
        return f"{prefix}-{next(self._names)}"

    def stop(self, reason: str, now: float) -> None:
        """Note that the sweep is to end before everything is done. The first reason is kept."""
        if self.stopping is None:
            self.stopping, self.stopped_at = reason, now

    def failing(self, role: Role) -> bool:
        """Whether workers of a role have failed to start so often that no more are started."""
        return self.failed_starts[role] >= self.policy.failed_starts

    def dead(self, role: Role) -> bool:
        """Whether no more workers of a role are started, and none is up."""
        return self.failing(role) and not self.fleet.of(role, Phase.IDLE, Phase.BUSY)
