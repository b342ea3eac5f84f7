"""The part of a replay that concerns one worker, one context or one draw."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.explain.replay import ReplayStep
from orchestrator.grid.errors import InputError
from orchestrator.scheduler.event_log import decode_start
from orchestrator.scheduler.events import (
    Assign,
    Command,
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
    WorkerLost,
    WorkerReady,
    WorkerTask,
)
from workers.messages import Committed, Graded, GradeTask, PatchFailed, PatchMade, PruneTask, Rejected, WeightsLoaded


@dataclass(frozen=True)
class Story:
    """Everything, or only what concerns a worker, or a context (one draw of it, or all) and its patch."""

    worker: str | None = None
    context_id: str | None = None
    patch_id: str | None = None
    draw: int | None = None

    @property
    def whole(self) -> bool:
        return self.worker is None and self.context_id is None

    def part(self, step: ReplayStep) -> list[int] | None:
        """Which of the step's commands belong to the story; None if neither they nor the event do."""
        places = [n for n, command in enumerate(step.commands) if self.whole or self._has_command(command, step)]
        return places if places or self.whole or self._has_event(step) else None

    def _has_event(self, step: ReplayStep) -> bool:
        match step.event:
            case StopRequested():
                return True
            case WorkerReady(worker):
                return worker == self.worker
            case WorkerLost(worker):
                return self._has_worker(worker, step)
            case NodeDraining(workers):
                return any(self._has_worker(worker, step) for worker in workers)
            case MissingFound(task_id):
                check = step.before.pending_checks.get(task_id)
                return check is not None and self._has_draws(check.context_id, check.numbers)
            case Reported(
                worker, PatchMade(patch_id=patch_id) | PatchFailed(patch_id=patch_id) | WeightsLoaded(patch_id=patch_id)
            ):
                return worker == self.worker or patch_id == self.patch_id
            case Reported(worker, Graded(context_id=context_id)):
                return worker == self.worker or self._has_draws(context_id, None)
            case Reported(worker, report):
                known = step.before.fleet.get(worker)
                task = known.tasks.get(report.task_id) if known is not None else None
                if isinstance(task, ShardNumbers) and isinstance(report, Committed | Rejected):
                    return worker == self.worker or self._has_draws(task.context_id, report.numbers)
                return worker == self.worker or (task is not None and self._has_task(task))
        return False

    def _has_command(self, command: Command, step: ReplayStep) -> bool:
        match command:
            case Finish():
                return True
            case StartWorker(worker):
                return worker == self.worker
            case Assign(worker, task):
                return worker == self.worker or self._has_task(task)
            case Retire(worker) | Kill(worker):
                return self._has_worker(worker, step)
            case FindMissing(shard):
                of_worker = isinstance(step.event, WorkerLost | Reported) and step.event.worker == self.worker
                return of_worker or self._has_task(shard)
            case RecordFailures(context_id, numbers):
                return self._has_draws(context_id, numbers)

    def _has_worker(self, worker: str, step: ReplayStep) -> bool:
        """Whether it is the story's worker, or has a task of the story's context."""
        known = step.before.fleet.get(worker)
        return worker == self.worker or (known is not None and any(map(self._has_task, known.tasks.values())))

    def _has_task(self, task: WorkerTask) -> bool:
        match task:
            case PruneTask(patches=patches):
                return any(one.patch_id == self.patch_id for one in patches)
            case GradeTask(context_id=context_id):
                return self._has_draws(context_id, None)
            case ShardNumbers(context_id=context_id, numbers=numbers):
                return self._has_draws(context_id, numbers)

    def _has_draws(self, context_id: str, numbers: Collection[int] | None) -> bool:
        """`numbers`: of that context; None for all of them."""
        return context_id == self.context_id and (self.draw is None or numbers is None or self.draw in numbers)


def find_story(start: Mapping[str, Any], worker: str | None, context: str | None, draw: str | None) -> Story:
    """The story that the options of `replay` select in a log with this starting state.

    `context`: the beginning of a context's id. `draw`: CONTEXT/NUMBER; draw n is the one of seed n % seeds for question
    n // seeds. Raises InputError if there is no such context, or if there are several.
    """
    number: int | None = None
    if draw is not None:
        context, _, digits = draw.rpartition("/")
        if not context or not digits.isdigit():
            raise InputError(f"--draw {draw}: give it as CONTEXT/NUMBER, such as 3fa9/12")
        number = int(digits)
    if context is None:
        return Story(worker)
    contexts = decode_start(start).state.contexts
    found = [name for name in contexts if name.startswith(context)]
    if len(found) != 1:
        what = f"{len(found)} contexts in this log begin" if found else "no context in this log begins"
        raise InputError(f"{context}: {what} like that; `--at 1` lists its contexts")
    return Story(worker, found[0], contexts[found[0]].context.patch_id, number)
