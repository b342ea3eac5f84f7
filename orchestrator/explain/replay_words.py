"""The core's events and commands, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from orchestrator.console import plural
from orchestrator.explain.replay import ReplayStep
from orchestrator.scheduler.events import (
    Assign,
    Command,
    Event,
    FindMissing,
    Finish,
    Kill,
    MissingFound,
    NodeDraining,
    RecordFailures,
    Reported,
    Retire,
    ShardNumbers,
    StartWorker,
    StopRequested,
    Tick,
    WorkerLost,
    WorkerReady,
    WorkerTask,
)
from orchestrator.scheduler.state import SweepState
from workers.failure import Failure
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
    Shape,
    StoreBlocked,
    TaskEnded,
    TaskFailed,
    WantsMore,
    WeightsLoaded,
)


@dataclass(frozen=True)
class Names:
    """Readable names of patches, contexts and shapes. One serves for a whole replay."""

    state: SweepState

    def patch(self, patch_id: str | None) -> str:
        if patch_id is None:
            return "no weights"
        works = self.state.by_patch.get(patch_id, [])
        label = works[0].context.variant if works else patch_id
        return label if self._several_models else label.partition(": ")[2] or label

    def patches(self, patch_ids: Sequence[str]) -> str:
        """At most three of them by name."""
        told = [self.patch(patch_id) for patch_id in patch_ids[:3]]
        return ", ".join(told) + (f" and {len(patch_ids) - 3} more" if len(patch_ids) > 3 else "")

    def context(self, context_id: str) -> str:
        work = self.state.contexts.get(context_id)
        return self.patch(work.context.patch_id) if work is not None else context_id

    def shape(self, shape: Shape) -> str:
        named = shape.model if shape.model.startswith("/") else shape.model.partition("@")[0]
        model = f"{named.rstrip('/').rpartition('/')[2]}, " if self._several_models else ""
        return f"{model}{plural(shape.layers, 'layer')}"

    @cached_property
    def _several_models(self) -> bool:
        return len({work.context.shape.model for work in self.state.contexts.values()}) > 1


def event_text(event: Event, step: ReplayStep, names: Names) -> str:
    """What happened."""
    match event:
        case WorkerReady(worker, facts):
            return f"{worker} is ready on {facts.host}, pid {facts.pid}"
        case WorkerLost(worker, failure):
            return f"{worker} is gone: {_failure(failure)}"
        case Reported(worker, report):
            return f"{worker}: {_report(report, step, worker, names)}"
        case MissingFound(task_id, missing):
            check = step.before.pending_checks.get(task_id)
            of = f" of {len(check.numbers)}" if check is not None else ""
            return f"the store was asked about {task_id}: {len(missing)}{of} draws are not stored"
        case NodeDraining(workers, why):
            return f"{', '.join(workers)} must close: {why}"
        case Tick():
            return "time passed"
        case StopRequested(why):
            return f"a stop was requested: {why}"


def _report(report: Report, step: ReplayStep, worker: str, names: Names) -> str:
    known = step.before.fleet.get(worker)
    task = known.tasks.get(report.task_id) if known is not None else None
    what = task_text(task, names) if task is not None else f"{report.task_id} (no longer its task)"
    match report:
        case Committed(numbers=numbers):
            return f"committed {plural(len(numbers), 'draw')} of {what}"
        case Heartbeat(tokens=tokens):
            return f"alive, {tokens:,} tokens generated"
        case WantsMore():
            return f"could take more draws besides {what}"
        case StoreBlocked(failure=failure):
            return f"waits: {_failure(failure)}"
        case WeightsLoaded(patch_id=patch_id, seconds=seconds):
            return f"holds {names.patch(patch_id)}, proved in {seconds:.1f} s"
        case Rejected(numbers=numbers, failure=failure):
            return f"cannot make {plural(len(numbers), 'draw')} of {what}: {_failure(failure)}"
        case PatchMade(patch_id=patch_id, seconds=seconds):
            return f"made {names.patch(patch_id)} in {seconds:.1f} s"
        case PatchFailed(patch_id=patch_id, failure=failure):
            return f"did not make {names.patch(patch_id)}: {_failure(failure)}"
        case Graded(answers=answers):
            return f"graded {plural(answers, 'answer')} of {what}"
        case TaskEnded():
            return f"ended {what}"
        case TaskFailed(failure=failure):
            return f"failed {what}: {_failure(failure)}"


def command_text(command: Command, names: Names) -> str:
    """What the core decided."""
    match command:
        case StartWorker(worker, _, shape, avoid):
            where = f", not on {plural(len(avoid), 'machine')}" if avoid else ""
            return f"start {worker}" + (f" for {names.shape(shape)}" if shape is not None else "") + where
        case Assign(worker, ShardNumbers(numbers=numbers) as task):
            return f"{worker} evaluates {plural(len(numbers), 'draw')} of {task_text(task, names)}"
        case Assign(worker, task):
            return f"{worker} takes {task_text(task, names)}"
        case FindMissing(shard):
            return f"look up {plural(len(shard.numbers), 'draw')} of {task_text(shard, names)} in the store"
        case RecordFailures(context_id, numbers):
            return f"give up {plural(len(numbers), 'draw')} of {names.context(context_id)}"
        case Retire(worker):
            return f"ask {worker} to commit and close"
        case Kill(worker):
            return f"kill {worker}"
        case Finish(why):
            return f"end the sweep: {why}"


def task_text(task: WorkerTask, names: Names) -> str:
    match task:
        case PruneTask(task_id, patches=patches):
            return f"the pruning of {names.patches([one.patch_id for one in patches])} ({task_id})"
        case ShardNumbers(task_id, context_id):
            return f"{names.context(context_id)} ({task_id})"
        case GradeTask(task_id, context_id):
            return f"the grading of {names.context(context_id)} ({task_id})"


def _failure(failure: Failure) -> str:
    return f"{failure.kind}: {failure.cause}"
