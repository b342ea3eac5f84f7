"""Every change to a worker's state: no other file of scheduler/ writes a field of `WorkerState`.

Each function keeps the indexes of `Fleet` and `SweepState` true and, where the worker has to be told, returns the
command that tells it.
"""

from orchestrator.scheduler import nodes
from orchestrator.scheduler.events import Assign, Kill, Retire, Role, StartWorker, WorkerTask
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.state import SweepState
from workers.failure import Failure, FailureKind
from workers.messages import Shape


def start(state: SweepState, role: Role, now: float, shape: Shape | None = None) -> StartWorker:
    """Start a worker; `shape` is an engine's."""
    avoid = nodes.to_avoid(state, role, shape)
    worker = WorkerState(state.new_name(role), role, now, now, shape, avoid)
    state.fleet.add(worker)
    state.counters.engines_started += role is Role.ENGINE
    return StartWorker(worker.name, role, shape, avoid)


def up(state: SweepState, worker: WorkerState, node: str, now: float) -> None:
    """A worker is ready for tasks."""
    state.fleet.set_phase(worker, Phase.IDLE)
    worker.since, worker.node = now, node
    state.failed_starts[worker.role] = 0


def heard(worker: WorkerState, now: float) -> None:
    """A worker reported something."""
    worker.since = now


def advanced(worker: WorkerState, now: float) -> None:
    """A worker got on with its work, or waits for something that is not its fault."""
    worker.progressed = now


def generated(worker: WorkerState, tokens: int, now: float) -> None:
    """An engine reported how many tokens it has generated since it started."""
    if tokens != worker.tokens:
        worker.tokens, worker.progressed = tokens, now


def named_nan(worker: WorkerState) -> None:
    """An engine reported the draws that gave NaN; its end follows, and no other draw is to blame for it."""
    worker.named_nan = True


def forgive(worker: WorkerState, seconds: float) -> None:
    """Subtract a time from a worker's silence and stagnation."""
    worker.since += seconds
    worker.progressed += seconds


def assign(state: SweepState, worker: WorkerState, task: WorkerTask, now: float) -> Assign:
    """Give a task to a worker that is idle, or to an engine that is hungry."""
    set_hungry(state, worker, False)
    if worker.phase is Phase.IDLE:
        state.fleet.set_phase(worker, Phase.BUSY)
        worker.since = worker.progressed = now
    worker.tasks[task.task_id] = task
    return Assign(worker.name, task)


def free(state: SweepState, worker: WorkerState, task_id: str, now: float) -> WorkerTask | None:
    """Take an ended task from its worker; None if the worker does not have it (its end was reported before)."""
    task = worker.tasks.pop(task_id, None)
    if task is not None and not worker.tasks and worker.phase is Phase.BUSY:
        set_hungry(state, worker, False)
        state.fleet.set_phase(worker, Phase.IDLE)
        worker.since = now
    return task


def set_hungry(state: SweepState, worker: WorkerState, hungry: bool) -> None:
    """Note whether a busy engine could take more draws of the variant that it holds."""
    if worker.hungry == hungry:
        return
    worker.hungry = hungry
    assert worker.patch_id is not None
    engines = state.hungry_engines.setdefault(worker.patch_id, {})
    if hungry:
        engines[worker.name] = worker
    else:
        del engines[worker.name]


def switch(state: SweepState, worker: WorkerState, patch_id: str) -> None:
    """Have an engine take another variant with its next task; until then it is fed nothing."""
    set_hungry(state, worker, False)
    state.fleet.set_patch(worker, patch_id)


def retire(state: SweepState, worker: WorkerState, now: float) -> Retire:
    """Ask a worker to commit what it has and close; it gets no further task."""
    _close(state, worker, now)
    return Retire(worker.name)


def dismiss(state: SweepState, worker: WorkerState, now: float) -> Kill:
    """Kill a worker that has nothing to commit."""
    _close(state, worker, now)
    return Kill(worker.name, Failure(FailureKind.RETIRED, "the sweep ended before it was ready"))


def _close(state: SweepState, worker: WorkerState, now: float) -> None:
    set_hungry(state, worker, False)
    state.fleet.set_phase(worker, Phase.CLOSING)
    worker.since = now


def kill(worker: WorkerState, cause: str, now: float) -> Kill:
    """Kill a worker that hangs. It stays in the fleet until the backend reports it lost."""
    worker.since = worker.progressed = now
    return Kill(worker.name, Failure(FailureKind.HANG, cause))


def lost(state: SweepState, worker: WorkerState, failure: Failure, now: float) -> None:
    """Forget a worker whose process is gone; its tasks are still to be dealt with."""
    set_hungry(state, worker, False)
    state.fleet.remove(worker)
    state.counters.workers_lost += worker.phase is not Phase.CLOSING
    if failure.kind.of_node:
        return  # another machine may do better, and each machine is tried once
    if worker.phase is Phase.STARTING and worker.started >= state.failed_at[worker.role]:
        state.failed_starts[worker.role] += 1
        state.failed_at[worker.role] = now
