"""The core: `core.handle(event, now) -> commands`. No clock, no I/O; all retry policy lives here, as data.

Promise emit-everything: every owed draw ends exactly once as committed, or as a recorded failure with its cause.

- A draw waits, runs in a slice, and leaves when its commit is reported. When a slice ends without that, or its worker
  is lost, the store is asked which of its draws it holds (a commit may have outlived its report), and only the others
  wait again.
- Draws that were lost together go on in halves, and with no others, so that a draw that kills engines is soon alone;
  alone, it is given up after `Policy.attempts` losses and recorded as a failure. Its companions never are, for it.
- An engine that dies of NaN is replaced; where it names the draws at fault, they are given up. A patch is given up when
  `Policy.attempts` engines in a row died of NaN on it and none of its draws was committed in between.
- A store that cannot be used is nobody's fault: nothing is given up for it. When it stays so, the sweep ends.
- Nothing is retried by anybody else: Ray's own retries are off.

What comes next is decided in orders.py, assigning.py and staffing.py.
"""

from collections.abc import Iterable, Iterator

from orchestrator.scheduler.events import (
    Command,
    Event,
    FindMissing,
    Finish,
    MissingFound,
    NodeDraining,
    RecordFailures,
    Reported,
    ShardNumbers,
    StopRequested,
    Tick,
    WorkerLost,
    WorkerReady,
    WorkerTask,
)
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.scaling import retire
from orchestrator.scheduler.schedule import next_commands
from orchestrator.scheduler.state import PendingCheck, SweepState
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, Policy, RetryGroup
from workers.failure import Failure, FailureKind
from workers.messages import (
    Committed,
    Graded,
    GradeTask,
    Heartbeat,
    PatchMade,
    PruneTask,
    Rejected,
    Report,
    StoreBlocked,
    TaskEnded,
    TaskFailed,
    WantsMore,
    WeightsLoaded,
)

_QUIET = (Committed, Heartbeat, WantsMore, WeightsLoaded, Graded)
"""Reports after which no other workers can be wanted than before."""


class Core:
    """One sweep on its way. See the module's docstring for what it promises."""

    def __init__(self, policy: Policy, patches: Iterable[PatchWork], contexts: Iterable[ContextWork]) -> None:
        self.state = SweepState(policy, patches, contexts)
        self.finished: str | None = None

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event; return what is to be done about it."""
        if not (isinstance(event, Tick) or (isinstance(event, Reported) and isinstance(event.report, _QUIET))):
            self.state.staffed = False
        commands = list(self._absorb(event, now))
        if self.finished is None:
            for command in next_commands(self.state, now):
                commands.append(command)
                if isinstance(command, Finish):
                    self.finished = command.reason
        return commands

    def _absorb(self, event: Event, now: float) -> Iterator[Command]:
        fleet = self.state.fleet
        match event:
            case WorkerReady(worker):
                if (known := fleet.get(worker)) is not None and known.phase is Phase.STARTING:
                    fleet.set_phase(known, Phase.IDLE)
                    known.since = now
                    self.state.failed_starts[known.role] = 0
            case Reported(worker, report):
                if (known := fleet.get(worker)) is not None:
                    known.since = now
                yield from self._take(report, known, now)
            case WorkerLost(worker, failure):
                yield from self._lost(worker, failure, now)
            case MissingFound(task_id, missing):
                yield from self._recounted(task_id, missing)
            case NodeDraining(workers):
                for worker in workers:
                    if (known := fleet.get(worker)) is not None and known.phase is not Phase.CLOSING:
                        yield retire(self.state, known, now)
            case StopRequested(reason):
                self.state.stop(reason, now)
            case Tick():
                pass

    # --- reports ------------------------------------------------------------------------------------------------------

    def _take(self, report: Report, known: WorkerState | None, now: float) -> Iterator[Command]:
        counters = self.state.counters
        match report:
            case Committed():
                counters.trace_tokens += report.trace_tokens
                counters.answer_tokens += report.answer_tokens
                counters.prompt_tokens += report.prompt_tokens
                counters.cached_tokens += report.cached_tokens
                self.state.store_losses = 0
                if known is not None:
                    known.progressed = now
                if (work := self.state.work_of.get(report.task_id)) is not None:
                    self.state.patches[work.context.patch_id].nan_losses = 0
                    lengths = dict(zip(report.numbers, report.lengths, strict=True))
                    for number in self.state.settle(work, report.task_id, report.numbers):
                        counters.committed += 1
                        work.ungraded = True
                        work.lengths.observe(number // work.seeds, lengths[number])
                    self.state.note(work)
            case Rejected(task_id, numbers, failure):
                work = self.state.work_of.get(task_id)
                if work is not None and (settled := self.state.settle(work, task_id, numbers)):
                    yield self._give_up(work, settled, failure, 1)
            case WantsMore(task_id):
                self._feed(task_id, known)
            case WeightsLoaded(seconds=seconds):
                counters.swaps += 1
                counters.swap_seconds += seconds
            case PatchMade(patch_id=patch_id):
                self.state.store_losses = 0
                if self.state.patches[patch_id].state is not PatchState.HELD:
                    self._set_patch(self.state.patches[patch_id], PatchState.HELD)
                    counters.patches_made += 1
            case Graded(answers=answers):
                self.state.store_losses = 0
                counters.graded += answers
            case TaskEnded(task_id):
                if known is not None and (task := self._free(known, task_id, now)) is not None:
                    yield from self._ended(task, known, now)
            case TaskFailed(task_id, failure):
                if known is not None and (task := self._free(known, task_id, now)) is not None:
                    yield from self._unfinished(task, failure, known.phase is Phase.CLOSING, now)
            case Heartbeat(tokens=tokens):
                if known is not None and tokens != known.tokens:
                    known.tokens, known.progressed = tokens, now
            case StoreBlocked():
                if known is not None:
                    known.progressed = now  # it waits for the store, and says so

    def _feed(self, task_id: str, known: WorkerState | None) -> None:
        """An engine could take more of what it holds: it may, unless it is to take other weights when it is done, or
        works on draws that were lost before."""
        if known is None or known.phase is not Phase.BUSY or task_id not in known.tasks:
            return
        runs = [self.state.work_of[name].running[name] for name in known.tasks if name in self.state.work_of]
        stays = all(
            self.state.work_of[name].context.patch_id == known.patch_id
            for name in known.tasks
            if name in self.state.work_of
        )
        if stays and not any(run.losses for run in runs):
            self.state.set_hungry(known, True)

    def _free(self, known: WorkerState, task_id: str, now: float) -> WorkerTask | None:
        """Take an ended task from its worker. None if the worker does not have it: this end was seen to before."""
        task = known.tasks.pop(task_id, None)
        if task is not None and not known.tasks and known.phase is Phase.BUSY:
            if known.hungry:
                self.state.set_hungry(known, False)
            self.state.fleet.set_phase(known, Phase.IDLE)
            known.since = now
        return task

    # --- the end of tasks ---------------------------------------------------------------------------------------------

    def _ended(self, task: WorkerTask, known: WorkerState, now: float) -> Iterator[Command]:
        """A task ended in order. What it should have reported and did not may be done all the same: it is recounted."""
        if isinstance(task, GradeTask):
            if (work := self.state.work_of.pop(task.task_id, None)) is not None:
                work.grading, work.grade_losses = None, 0
                # One that was asked to close has left off where it was.
                work.ungraded = work.ungraded or known.phase is Phase.CLOSING
                self.state.note(work)
            return
        failure = Failure(FailureKind.ENGINE_ERROR, "its task ended without it")
        yield from self._unfinished(task, failure, known.phase is Phase.CLOSING, now)

    def _unfinished(
        self, task: WorkerTask, failure: Failure, blameless: bool, now: float, worker_lost: bool = False
    ) -> Iterator[Command]:
        """A task is over, and what it did not report as done is open again, once the store has been asked."""
        if failure.kind.of_store and not (isinstance(task, PruneTask) and self._is_done(task)):
            self.state.store_losses += 1
            if self.state.store_losses >= self.state.policy.attempts:
                self.state.stop(f"the store cannot be used: {failure.cause}", now)
        if isinstance(task, PruneTask):
            if (patch := self.state.patches[task.patch_id]).state is PatchState.MAKING:
                yield from self._patch_failed(patch, failure, blameless, now)
            return
        work = self.state.work_of.pop(task.task_id, None)
        if work is None:
            return
        if isinstance(task, GradeTask):
            self._grading_failed(work, failure, blameless)
            return
        if failure.kind.final and not worker_lost and (work.fresh or work.lost):
            yield self._give_up(work, work.drain(), failure, 1)
        run = self.state.end(work, task.task_id)
        if rest := run.rest():
            self.state.pending_checks[task.task_id] = PendingCheck(
                work.context.context_id, rest, run.losses, failure, blameless, worker_lost
            )
            yield FindMissing(ShardNumbers(task.task_id, work.context.context_id, rest))
        self.state.note(work)

    def _is_done(self, task: PruneTask) -> bool:
        return self.state.patches[task.patch_id].state is not PatchState.MAKING

    def _lost(self, worker: str, failure: Failure, now: float) -> Iterator[Command]:
        known = self.state.fleet.get(worker)
        if known is None:
            return
        if known.hungry:
            self.state.set_hungry(known, False)
        self.state.fleet.remove(worker)
        closing = known.phase is Phase.CLOSING
        self.state.counters.workers_lost += not closing
        if known.phase is Phase.STARTING and known.started >= self.state.failed_at[known.role]:
            self.state.failed_starts[known.role] += 1
            self.state.failed_at[known.role] = now
        if failure.kind.final and not closing:
            for patch_id in {
                self.state.work_of[name].context.patch_id for name in known.tasks if name in self.state.work_of
            }:
                yield from self._lost_to_nan(self.state.patches[patch_id], failure)
        for task in list(known.tasks.values()):
            yield from self._unfinished(task, failure, closing, now, worker_lost=True)

    def _recounted(self, task_id: str, missing: frozenset[int]) -> Iterator[Command]:
        counted = self.state.pending_checks.pop(task_id, None)
        if counted is None:
            return
        work, failure = self.state.contexts[counted.context_id], counted.failure
        left = tuple(number for number in counted.numbers if number in missing)
        self.state.counters.committed += len(counted.numbers) - len(left)
        work.ungraded = work.ungraded or len(left) < len(counted.numbers)
        patch = self.state.patches[work.context.patch_id]
        if left and failure.kind.unproved:
            yield from self._refused(work, left, counted.losses, failure)
        elif left and failure.kind.final and not counted.worker_lost:
            yield self._give_up(work, left, failure, counted.losses + 1)
        elif left and (self.state.stopping is not None or counted.blameless or failure.kind.blameless):
            self._wait_again(work, left, counted.losses)
        elif left and failure.kind.final and patch.nan_losses >= self.state.policy.attempts:
            yield self._give_up(work, left, failure, patch.nan_losses)
        elif left:
            yield from self._requeue(work, left, counted.losses + 1, failure)
        self.state.note(work)

    # --- retry policy -------------------------------------------------------------------------------------------------

    def _wait_again(self, work: ContextWork, numbers: tuple[int, ...], losses: int) -> None:
        """Nobody is to blame: the draws wait as they did before."""
        if losses:
            work.lost.append(RetryGroup(numbers, losses))
        else:
            work.put_back(numbers)

    def _refused(self, work: ContextWork, numbers: tuple[int, ...], losses: int, failure: Failure) -> Iterator[Command]:
        """An engine could not prove a swap: no draw is to blame. After a few engines, the patch is given up."""
        patch = self.state.patches[work.context.patch_id]
        patch.refusals += 1
        self._wait_again(work, numbers, losses)
        if patch.refusals >= self.state.policy.attempts:
            yield from self._give_up_patch(patch, failure, patch.refusals)

    def _lost_to_nan(self, patch: PatchWork, failure: Failure) -> Iterator[Command]:
        """An engine died because a patch gave NaN. After a few in a row, what waits for the patch is given up."""
        patch.nan_losses += 1
        if patch.nan_losses >= self.state.policy.attempts:
            yield from self._give_up_patch(patch, failure, patch.nan_losses)

    def _requeue(self, work: ContextWork, numbers: tuple[int, ...], losses: int, failure: Failure) -> Iterator[Command]:
        if len(numbers) > 1:
            middle = len(numbers) // 2
            work.lost.extend((RetryGroup(numbers[:middle], losses), RetryGroup(numbers[middle:], losses)))
        elif losses < self.state.policy.attempts:
            work.lost.append(RetryGroup(numbers, losses))
        else:
            yield self._give_up(work, numbers, failure, losses)

    def _patch_failed(self, patch: PatchWork, failure: Failure, blameless: bool, now: float) -> Iterator[Command]:
        policy = self.state.policy
        if blameless or failure.kind.blameless:
            patch.not_before = now + policy.backoff_seconds
            self._set_patch(patch, PatchState.OWED)
            return
        patch.attempts += 1
        if not failure.kind.final and patch.attempts < policy.attempts:
            patch.not_before = now + min(policy.longest_backoff, policy.backoff_seconds * 2 ** (patch.attempts - 1))
            self._set_patch(patch, PatchState.OWED)
            return
        patch.state = PatchState.FAILED
        yield from self._give_up_patch(patch, failure, patch.attempts)

    def _set_patch(self, patch: PatchWork, state: PatchState) -> None:
        patch.state = state
        self.state.note_patch(patch.task.patch_id)

    def _give_up_patch(self, patch: PatchWork, failure: Failure, attempts: int) -> Iterator[Command]:
        for work in self.state.by_patch.get(patch.task.patch_id, ()):
            if work.fresh or work.lost:
                yield self._give_up(work, work.drain(), failure, attempts)
            self.state.note(work)

    def _grading_failed(self, work: ContextWork, failure: Failure, blameless: bool) -> None:
        work.grading = None
        work.grade_losses += not (blameless or failure.kind.blameless)
        # After that: the answers are in the store, and a later run grades them when the grader is well again.
        work.ungraded = work.grade_losses < self.state.policy.attempts
        self.state.note(work)

    def _give_up(self, work: ContextWork, numbers: Iterable[int], failure: Failure, attempts: int) -> RecordFailures:
        given_up = tuple(numbers)
        self.state.counters.failed += len(given_up)
        self.state.note(work)
        return RecordFailures(work.context.context_id, given_up, failure, attempts)
