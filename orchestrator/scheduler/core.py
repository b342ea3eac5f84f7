"""The core: `core.handle(event, now) -> commands`. No clock and no I/O.

Promise emit-everything: every owed draw ends exactly once, as committed or as a recorded failure with its cause.

- A draw waits, runs in a shard, and is done when its commit is reported. When a shard ends without that, or its worker
  is lost, the store is asked which of its draws are missing (a commit may have outlived its report), and only those
  wait again.
- Draws that were lost together are retried in halves, until the draw at fault is alone and is given up. Its companions
  are never given up because of it. See retry.py.
- Patches are made together where they share passes, and reported one by one. What a lost pruner had not reported is
  made again, each patch alone, so that a bad one is never lost with others twice.
- An engine that dies of NaN names the draws at fault where it can, and they are given up at once. While no draw of a
  patch has ever been committed, every draw may give NaN: one draw at a time, alone, finds out. See retry.py.
- A machine that cannot read what the driver read is avoided for that model's work. Nothing is given up for it: if no
  machine is left, the draws stay owed, and the sweep ends when nothing else can be done. See nodes.py.
- A store that cannot be used is nobody's fault: nothing is given up for it. If that persists, the sweep ends.
- Nothing else retries anything: Ray's own retries are off.

What to do next is decided in schedule.py, assignment.py and scaling.py; transitions.py changes the workers' state.
"""

from collections.abc import Iterable, Iterator

from orchestrator.scheduler import nodes, retry, transitions
from orchestrator.scheduler.events import (
    Command,
    Event,
    FindMissing,
    Finish,
    MissingFound,
    NodeDraining,
    Reported,
    ShardNumbers,
    StopRequested,
    Tick,
    WorkerLost,
    WorkerReady,
    WorkerTask,
)
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.schedule import next_commands
from orchestrator.scheduler.state import PendingCheck, SweepState
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, Policy
from workers.failure import Failure, FailureKind
from workers.messages import (
    Committed,
    Graded,
    GradeTask,
    Heartbeat,
    PatchFailed,
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
"""Reports after which the fleet needs no other workers than before."""


class Core:
    """One running sweep. See the module's docstring for what it promises."""

    def __init__(self, policy: Policy, patches: Iterable[PatchWork], contexts: Iterable[ContextWork]) -> None:
        self.state = SweepState(policy, patches, contexts)
        self.finished: str | None = None
        """Why the sweep ended; None while it runs."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """Handle one event; return what is to be done about it."""
        if not (isinstance(event, Tick) or (isinstance(event, Reported) and isinstance(event.report, _QUIET))):
            self.state.scaled = False
        commands = list(self._apply(event, now))
        if self.finished is None:
            for command in next_commands(self.state, now):
                commands.append(command)
                if isinstance(command, Finish):
                    self.finished = command.reason
        return commands

    def _apply(self, event: Event, now: float) -> Iterator[Command]:
        state = self.state
        match event:
            case WorkerReady(name, _, node):
                if (worker := state.fleet.get(name)) is not None and worker.phase is Phase.STARTING:
                    transitions.up(state, worker, node, now)
            case Reported(name, report):
                if (worker := state.fleet.get(name)) is not None:
                    transitions.heard(worker, now)
                yield from self._apply_report(report, worker, now)
            case WorkerLost(name, failure, node):
                if (worker := state.fleet.get(name)) is not None:
                    if failure.kind.of_node:
                        nodes.could_not_start(state, worker, node, failure)
                    yield from self._worker_lost(worker, failure, now)
            case MissingFound(task_id, missing):
                yield from self._missing_found(task_id, missing)
            case NodeDraining(names):
                for worker in map(state.fleet.get, names):
                    if worker is not None and worker.phase is not Phase.CLOSING:
                        yield transitions.retire(state, worker, now)
            case StopRequested(reason):
                state.stop(reason, now)
            case Tick():
                pass

    # --- reports ------------------------------------------------------------------------------------------------------

    def _apply_report(self, report: Report, worker: WorkerState | None, now: float) -> Iterator[Command]:
        """Take in a report; `worker` is None if it was lost before."""
        state, counters = self.state, self.state.counters
        match report:
            case Committed():
                if worker is not None:
                    transitions.advanced(worker, now)
                self._committed(report)
            case Rejected(task_id, numbers, failure):
                work = state.work_of.get(task_id)
                if work is not None and (settled := state.settle_draws(work, task_id, numbers)):
                    yield retry.give_up(state, work, settled, failure, 1)
                    if worker is not None and failure.kind is FailureKind.NAN:
                        transitions.named_nan(worker)
            case WantsMore(task_id):
                if worker is not None and task_id in worker.tasks and self._may_be_fed(worker):
                    transitions.set_hungry(state, worker, True)
            case WeightsLoaded(seconds=seconds):
                counters.swaps += 1
                counters.swap_seconds += seconds
            case PatchMade(patch_id=patch_id):
                state.store_failures = 0
                if state.patches[patch_id].state is not PatchState.STORED:
                    state.set_patch_state(state.patches[patch_id], PatchState.STORED)
                    counters.patches_made += 1
            case PatchFailed(task_id, patch_id, failure):
                patch = state.patches[patch_id]
                if worker is not None and patch.making == task_id:
                    if failure.kind.of_node:
                        nodes.could_not_make(state, worker, patch, failure)
                    yield from retry.patch_failed(state, patch, failure, worker.phase is Phase.CLOSING, now)
            case Graded(answers=answers):
                state.store_failures = 0
                counters.graded += answers
            case TaskEnded(task_id):
                if worker is not None and (task := transitions.free(state, worker, task_id, now)) is not None:
                    yield from self._task_ended(task, worker.phase is Phase.CLOSING, now)
            case TaskFailed(task_id, failure):
                if worker is not None and (task := transitions.free(state, worker, task_id, now)) is not None:
                    if failure.kind.of_node:
                        nodes.could_not_do(state, worker, task, failure)
                    yield from self._task_unfinished(task, failure, worker.phase is Phase.CLOSING, now)
            case Heartbeat(tokens=tokens):
                if worker is not None:
                    transitions.generated(worker, tokens, now)
            case StoreBlocked():
                if worker is not None:
                    transitions.advanced(worker, now)

    def _committed(self, report: Committed) -> None:
        state, counters = self.state, self.state.counters
        counters.trace_tokens += report.trace_tokens
        counters.answer_tokens += report.answer_tokens
        counters.prompt_tokens += report.prompt_tokens
        counters.cached_tokens += report.cached_tokens
        state.store_failures = 0
        work = state.work_of.get(report.task_id)
        if work is None:
            return
        state.patches[work.context.patch_id].sampled = True
        lengths = dict(zip(report.numbers, report.lengths, strict=True))
        for number in state.settle_draws(work, report.task_id, report.numbers):
            counters.committed += 1
            work.ungraded = True
            work.lengths.observe(number // work.seeds, lengths[number])
        state.reindex(work)

    def _may_be_fed(self, engine: WorkerState) -> bool:
        """Whether an engine that wants more draws of its variant may have them: not if it is about to switch variants,
        or is retrying lost draws."""
        works = {task_id: self.state.work_of[task_id] for task_id in engine.tasks if task_id in self.state.work_of}
        return (
            engine.phase is Phase.BUSY
            and all(work.context.patch_id == engine.patch_id for work in works.values())
            and not any(work.running[task_id].losses for task_id, work in works.items())
        )

    # --- the end of tasks ---------------------------------------------------------------------------------------------

    def _task_ended(self, task: WorkerTask, closing: bool, now: float) -> Iterator[Command]:
        """A task ended in order. Of a shard's draws that were not reported, some may be in the store all the same."""
        if isinstance(task, GradeTask):
            if (work := self.state.work_of.pop(task.task_id, None)) is not None:
                work.grading, work.grade_losses = None, 0
                work.ungraded = work.ungraded or closing  # a grader that is asked to close leaves the rest ungraded
                self.state.reindex(work)
            return
        failure = Failure(FailureKind.ENGINE_ERROR, "the shard ended without reporting this draw")
        yield from self._task_unfinished(task, failure, closing, now)

    def _task_unfinished(
        self, task: WorkerTask, failure: Failure, blameless: bool, now: float, worker_lost: bool = False
    ) -> Iterator[Command]:
        """A task is over; what it did not report as done is owed again, for a shard once the store has been asked."""
        state = self.state
        if failure.kind.of_store and (not isinstance(task, PruneTask) or state.patches_left(task)):
            state.store_failures += 1
            if state.store_failures >= state.policy.attempts:
                state.stop(f"the store cannot be used: {failure.cause}", now)
        if isinstance(task, PruneTask):
            yield from retry.pruning_failed(state, task, failure, blameless, now)
            return
        work = state.work_of.pop(task.task_id, None)
        if work is None:
            return
        if isinstance(task, GradeTask):
            retry.grading_failed(state, work, failure, blameless)
            return
        if failure.kind.final and not worker_lost and (work.fresh or work.retries):
            yield retry.give_up(state, work, work.drain(), failure, 1)
        shard = state.end_shard(work, task.task_id)
        context_id = work.context.context_id
        if left := shard.numbers_left():
            state.pending_checks[task.task_id] = PendingCheck(
                context_id, left, shard.losses, failure, blameless, worker_lost, alone=len(shard.numbers) == 1
            )
            yield FindMissing(ShardNumbers(task.task_id, context_id, left))
        state.reindex(work)

    def _worker_lost(self, worker: WorkerState, failure: Failure, now: float) -> Iterator[Command]:
        state = self.state
        transitions.lost(state, worker, failure, now)
        closing = worker.phase is Phase.CLOSING
        works = [(state.work_of[task_id], task_id) for task_id in worker.tasks if task_id in state.work_of]
        if failure.kind.final and not closing and works:
            patch = state.patches[works[0][0].context.patch_id]  # an engine's tasks are of one patch
            probe = any(work.running[task_id].probe for work, task_id in works)
            yield from retry.lost_to_nan(state, patch, probe, failure)
        for task in worker.tasks.values():
            yield from self._task_unfinished(task, failure, closing or worker.named_nan, now, worker_lost=True)

    def _missing_found(self, task_id: str, missing: frozenset[int]) -> Iterator[Command]:
        state = self.state
        check = state.pending_checks.pop(task_id, None)
        if check is None:
            return
        work = state.contexts[check.context_id]
        left = tuple(number for number in check.numbers if number in missing)
        stored = len(check.numbers) - len(left)
        state.counters.committed += stored
        work.ungraded = work.ungraded or stored > 0
        if stored:
            state.patches[work.context.patch_id].sampled = True
        if left:
            yield from retry.retry_missing(state, check, left)
        state.reindex(work)
