"""Which machines are avoided, and for what: those that cannot read what the driver read.

A machine that lacks a model's folder, or has other weights there, does no more of that model's work in this run; one
that lacks a patch's calibration data or checkpoint does not make that patch; one that sees another store does nothing.
When no machine is left for a model or a patch, it is stranded: its draws stay owed, the others are made, and then the
sweep ends with the last machine's cause. The next run tries every machine again, so whoever has put the folder there
runs the same command.

The backend knows which machines are alive; it answers the start of a worker that may run on none of them with a loss
that names no machine.
"""

from collections.abc import Iterable

from orchestrator.scheduler.events import Role, WorkerTask
from orchestrator.scheduler.fleet import WorkerState
from orchestrator.scheduler.state import SweepState
from orchestrator.scheduler.work import PatchWork
from workers.failure import Failure, FailureKind
from workers.messages import PruneTask, Shape

EVERYTHING = ""


def avoided(state: SweepState, *keys: str) -> set[str]:
    """Machines that do no work of a model or a patch; without keys, those that do none at all."""
    return {node for key in (EVERYTHING, *keys) for node in state.avoided.get(key, ())}


def to_avoid(state: SweepState, role: Role, shape: Shape | None) -> tuple[str, ...]:
    """Machines on which a new worker would be of no use; a pruner is of use where any owed patch can be made."""
    if not state.avoided:
        return ()
    if role is Role.PRUNE:
        owed = state.owed_patches()
        machines = _everywhere(avoided(state, one.model, one.patch_id) for one in owed) if owed else avoided(state)
    else:
        machines = avoided(state, shape.model) if shape is not None else avoided(state)
    return tuple(sorted(machines))


def useless(state: SweepState, pruner: WorkerState, patch: PatchWork) -> bool:
    """Whether a pruner's machine cannot make a patch."""
    return pruner.node in avoided(state, patch.model, patch.patch_id)


def slots(state: SweepState) -> int:
    """How many devices there are to share: without those of machines that no model with work left can use."""
    if not state.avoided:
        return state.policy.slots
    models = {state.contexts[name].context.shape.model for name in state.unfinished} - state.stranded.keys()
    idle = _everywhere(avoided(state, model) for model in models) if models else avoided(state)
    taken = sum(state.policy.nodes.get(node, 0) for node in idle)
    # One is left for the start that the backend answers by saying that no machine is left.
    return max(1, min(state.policy.slots, sum(state.policy.nodes.values()) - taken)) if taken else state.policy.slots


def _everywhere(machines: Iterable[set[str]]) -> set[str]:
    return set.intersection(*machines)


def could_not_start(state: SweepState, worker: WorkerState, node: str, failure: Failure) -> None:
    """A worker was not started because of its machine, or because no machine was left (`node` is empty)."""
    shape = worker.shape if failure.kind is FailureKind.SOURCE else None
    if node or not worker.avoid:
        _avoid(state, shape.model if shape is not None else EVERYTHING, node, failure)
    elif worker.role is Role.GRADE:
        state.failed_starts[Role.GRADE] = state.policy.failed_starts
    else:
        for patch_id, works in state.by_patch.items():
            model = works[0].context.shape.model
            for key in (model, patch_id) if worker.role is Role.PRUNE else (model,):
                if avoided(state, model, key) >= set(worker.avoid):
                    _strand(state, key, failure)
                    break


def could_not_do(state: SweepState, worker: WorkerState, task: WorkerTask, failure: Failure) -> None:
    """A task failed because of its worker's machine. Which of several patches lacks its data, each will show alone."""
    key = worker.shape.model if worker.shape is not None else EVERYTHING
    if isinstance(task, PruneTask) and failure.kind is FailureKind.DATA:
        if len(task.patches) > 1:
            return
        key = task.patches[0].patch_id
    elif isinstance(task, PruneTask) and failure.kind is not FailureKind.OTHER_STORE:
        key = task.model
    _avoid(state, key, worker.node, failure)


def could_not_make(state: SweepState, pruner: WorkerState, patch: PatchWork, failure: Failure) -> None:
    """A patch, and not its whole task, failed because of the pruner's machine."""
    _avoid(state, patch.patch_id, pruner.node, failure)


def _avoid(state: SweepState, key: str, node: str, failure: Failure) -> None:
    """A machine does no more work of `key`; if it has no name, it is the only one."""
    if node:
        state.avoided.setdefault(key, {})[node] = failure.cause
        return
    models = {work.context.shape.model for work in state.contexts.values()}
    for stranded in [key] if key != EVERYTHING else models:
        _strand(state, stranded, failure)


def _strand(state: SweepState, key: str, failure: Failure) -> None:
    """No machine is left that can do the work of a model, or make a patch."""
    causes = [cause for of in (EVERYTHING, key) for cause in state.avoided.get(of, {}).values()]
    state.stranded.setdefault(key, causes[-1] if causes else failure.cause)
    for work in state.contexts.values():
        state.reindex(work)


def why_stranded(state: SweepState) -> list[str]:
    """For each cause, what cannot be done, in one line."""
    by_cause: dict[str, list[str]] = {}
    for key, cause in state.stranded.items():
        name = state.by_patch[key][0].context.variant if key in state.by_patch else key
        by_cause.setdefault(cause, []).append(name)
    return [
        f"no machine can do the work of {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {cause}"
        for cause, names in by_cause.items()
    ]
