"""The core: `state.handle(event, now) -> commands`. No clock, no I/O; all retry policy lives here, as data.

Promise emit-everything: every owed draw ends exactly once as committed, or as a recorded failure with its cause.

- A draw waits in a piece, runs in a shard, and leaves when its commit is reported. When a shard ends without that, or
  its worker is lost, the store is asked which of its draws it holds (a commit may have outlived its report), and only
  the others wait again.
- A piece that was lost goes on in halves, so that a draw that kills engines is soon alone; alone, it is given up after
  `Policy.attempts` losses and recorded as a failure. Its companions never are, for it.
- Nothing is retried by anybody else: Ray's own retries are off.

What idle workers do next is decided in orders.py.
"""

from collections.abc import Iterable, Iterator

from orchestrator.events import (
    Command,
    Event,
    Finish,
    RecordFailures,
    Recount,
    Recounted,
    Reported,
    StopAsked,
    TaskEnded,
    TaskFailed,
    Tick,
    WorkerLost,
    WorkerReady,
)
from orchestrator.orders import next_orders
from orchestrator.work import ContextWork, Life, Patched, PatchWork, Piece, Policy, State, key
from workers.messages import (
    Committed,
    DrawKey,
    Failure,
    FailureRow,
    Graded,
    GradeTask,
    Heartbeat,
    Item,
    PatchMade,
    PruneTask,
    Rejected,
    Report,
    Shard,
    Swapped,
    Task,
)

FINAL_KINDS = frozenset({"nan", "bad-input"})
"""Failures of the variant or its input: it would fail everywhere, so it is not tried again."""

UNPROVED = "proof"
"""The kind of failure of an engine that does not hold the weights it should. It comes before any sample."""


class Core:
    """One sweep on its way. See the module's docstring for what it promises."""

    def __init__(self, policy: Policy, patches: Iterable[PatchWork], contexts: Iterable[ContextWork]) -> None:
        self.state = State(policy, patches, contexts)
        self.finished: str | None = None
        self._tasks: dict[str, ContextWork] = {}
        """Task id of a running shard or grading -> its context."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event; return what is to be done about it."""
        commands = list(self._absorb(event, now))
        if self.finished is None:
            for command in next_orders(self.state, now, self._tasks):
                commands.append(command)
                if isinstance(command, Finish):
                    self.finished = command.reason
        return commands

    def _absorb(self, event: Event, now: float) -> Iterator[Command]:
        state = self.state
        match event:
            case WorkerReady(worker):
                if (known := state.workers.get(worker)) is not None and known.life is Life.STARTING:
                    known.life, known.since = Life.IDLE, now
                    state.failed_starts[known.role] = 0
            case Reported(worker, report):
                if (known := state.workers.get(worker)) is not None:
                    known.since = now
                yield from self._take(report, now)
            case TaskEnded(worker, task_id):
                if (task := self._free(worker, task_id, now)) is not None:
                    yield from self._ended(task, now)
            case TaskFailed(worker, task_id, failure):
                if (task := self._free(worker, task_id, now)) is not None:
                    yield from self._unfinished(task, failure, now)
            case WorkerLost(worker, failure):
                yield from self._lost(worker, failure, now)
            case Recounted(task_id, missing):
                yield from self._recounted(task_id, missing, now)
            case StopAsked(reason):
                state.stopping = reason
            case Tick():
                pass

    def _free(self, worker: str, task_id: str, now: float) -> Task | None:
        """Take an ended task from its worker. None if the worker has another or is gone: this end was seen to then."""
        known = self.state.workers.get(worker)
        if known is None or known.task is None or known.task.task_id != task_id:
            return None
        task, known.task, known.since = known.task, None, now
        if known.life is Life.BUSY:
            known.life = Life.IDLE
        return task

    # --- reports ------------------------------------------------------------------------------------------------------

    def _take(self, report: Report, now: float) -> Iterator[Command]:
        tally = self.state.tally
        match report:
            case Committed():
                tally.trace_tokens += report.trace_tokens
                tally.answer_tokens += report.answer_tokens
                tally.prompt_tokens += report.prompt_tokens
                tally.cached_tokens += report.cached_tokens
                work, items = self._settle(report.task_id, frozenset(report.keys))
                if work is not None and items:
                    tally.committed += len(items)
                    work.ungraded = True
            case Rejected(task_id, rejected, failure):
                work, items = self._settle(task_id, frozenset(rejected))
                if work is not None and items:
                    yield self._give_up(work, items, failure, 1, now)
            case Swapped(seconds=seconds):
                tally.swaps += 1
                tally.swap_seconds += seconds
            case PatchMade(patch_id=patch_id):
                if self.state.patches[patch_id].state is not Patched.HELD:
                    self.state.patches[patch_id].state = Patched.HELD
                    tally.patches_made += 1
            case Graded(answers=answers):
                tally.graded += answers
            case Heartbeat():
                pass

    def _settle(self, task_id: str, done: frozenset[DrawKey]) -> tuple[ContextWork | None, list[Item]]:
        """Remove draws from the shard that ran them. A report that comes twice finds nothing left to remove."""
        work = self._tasks.get(task_id)
        if work is None or task_id not in work.running:
            return None, []
        piece = work.running[task_id]
        settled = [item for item in piece.items if key(work.context, item) in done]
        left = tuple(item for item in piece.items if key(work.context, item) not in done)
        work.running[task_id] = Piece(left, piece.losses)
        return work, settled

    # --- the end of tasks ---------------------------------------------------------------------------------------------

    def _ended(self, task: Task, now: float) -> Iterator[Command]:
        """A task ended in order. What it should have reported and did not may be done all the same: it is recounted."""
        if isinstance(task, GradeTask):
            if (work := self._tasks.pop(task.task_id, None)) is not None:
                work.grading, work.grade_losses = None, 0
            return
        yield from self._unfinished(task, Failure("engine-error", "its task ended without it"), now)

    def _unfinished(self, task: Task, failure: Failure, now: float) -> Iterator[Command]:
        """A task is over, and what it did not report as done is open again, once the store has been asked."""
        if isinstance(task, PruneTask):
            if (patch := self.state.patches[task.patch_id]).state is Patched.MAKING:
                yield from self._patch_failed(patch, failure, now)
            return
        work = self._tasks.pop(task.task_id, None)
        if work is None:
            return
        if isinstance(task, GradeTask):
            self._grading_failed(work)
            return
        if failure.kind in FINAL_KINDS and work.draws:
            yield self._give_up(work, work.drain(), failure, 1, now)
        if (piece := work.running.pop(task.task_id)).items:
            shard = Shard(task.task_id, work.context, piece.items)
            self.state.recounting[task.task_id] = (shard, piece, failure)
            yield Recount(shard)

    def _lost(self, worker: str, failure: Failure, now: float) -> Iterator[Command]:
        known = self.state.workers.pop(worker, None)
        if known is None:
            return
        if known.life is not Life.CLOSING:
            self.state.tally.workers_lost += 1
        if known.life is Life.STARTING:
            self.state.failed_starts[known.role] += 1
        if known.task is not None:
            yield from self._unfinished(known.task, failure, now)

    def _recounted(self, task_id: str, missing: frozenset[DrawKey], now: float) -> Iterator[Command]:
        if task_id not in self.state.recounting:
            return
        shard, piece, failure = self.state.recounting.pop(task_id)
        work = self.state.contexts[shard.context.context_id]
        left = tuple(item for item in piece.items if key(work.context, item) in missing)
        self.state.tally.committed += len(piece.items) - len(left)
        work.ungraded = work.ungraded or len(left) < len(piece.items)
        if not left:
            return
        if failure.kind == UNPROVED:
            yield from self._refused(work, Piece(left, piece.losses), failure, now)
        elif failure.kind in FINAL_KINDS:
            yield self._give_up(work, left, failure, piece.losses + 1, now)
        elif self.state.stopping is not None:
            work.add(Piece(left, piece.losses))
        else:
            yield from self._requeue(work, Piece(left, piece.losses), failure, now)

    # --- retry policy -------------------------------------------------------------------------------------------------

    def _refused(self, work: ContextWork, piece: Piece, failure: Failure, now: float) -> Iterator[Command]:
        """An engine could not prove a swap: no draw is to blame. After a few engines, the patch is given up."""
        patch = self.state.patches[work.context.patch_id]
        patch.refusals += 1
        work.add(piece)
        if patch.refusals >= self.state.policy.attempts:
            for other in self.state.by_patch[work.context.patch_id]:
                if other.draws:
                    yield self._give_up(other, other.drain(), failure, patch.refusals, now)

    def _requeue(self, work: ContextWork, piece: Piece, failure: Failure, now: float) -> Iterator[Command]:
        losses = piece.losses + 1
        if len(piece.items) > 1:
            middle = len(piece.items) // 2
            work.add(Piece(piece.items[:middle], losses))
            work.add(Piece(piece.items[middle:], losses))
        elif losses < self.state.policy.attempts:
            work.add(Piece(piece.items, losses))
        else:
            yield self._give_up(work, piece.items, failure, losses, now)

    def _patch_failed(self, patch: PatchWork, failure: Failure, now: float) -> Iterator[Command]:
        patch.attempts += 1
        policy = self.state.policy
        if failure.kind not in FINAL_KINDS and patch.attempts < policy.attempts:
            patch.state = Patched.OWED
            patch.not_before = now + policy.backoff_seconds * 2 ** (patch.attempts - 1)
            return
        patch.state = Patched.FAILED
        for work in self.state.by_patch.get(patch.task.patch_id, ()):
            if work.draws:
                yield self._give_up(work, work.drain(), failure, patch.attempts, now)

    def _grading_failed(self, work: ContextWork) -> None:
        work.grading = None
        work.grade_losses += 1
        # After that: the answers are in the store, and a later run grades them when the grader is well again.
        work.ungraded = work.grade_losses < self.state.policy.attempts

    def _give_up(
        self, work: ContextWork, items: Iterable[Item], failure: Failure, attempts: int, now: float
    ) -> RecordFailures:
        rows = tuple(
            FailureRow(
                context_id=work.context.context_id,
                prompt_id=item.prompt_id,
                seed=item.job.seed,
                benchmark=item.benchmark,
                problem_id=item.job.problem_id,
                kind=failure.kind,
                cause=failure.cause,
                attempts=attempts,
                log=failure.log,
                created_at=now,
            )
            for item in items
        )
        self.state.tally.failed += len(rows)
        return RecordFailures(rows)
