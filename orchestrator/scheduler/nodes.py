"""Which machines are avoided, and for what: those that cannot read what the driver read.

A machine that lacks a model's folder, or has other weights there, does no more of that model's work in this run; it may
do that of other models. A machine that sees another store does nothing. When no machine is left for a model, the model
is stranded: its draws stay owed, the other models' are made, and then the sweep ends with the last machine's cause. The
next run tries every machine again, so whoever has put the folder there runs the same command.

The backend knows which machines are alive; it answers the start of a worker that may run on none of them with a loss
that names no machine.
"""

from orchestrator.scheduler.events import Role, WorkerTask
from orchestrator.scheduler.fleet import WorkerState
from orchestrator.scheduler.state import SweepState
from workers.failure import Failure, FailureKind
from workers.messages import GradeTask, PruneTask, Shape

ALL_MODELS = ""


def avoided(state: SweepState, model: str) -> set[str]:
    """Machines that do no work of a model; those that do none at all for `ALL_MODELS`."""
    return {*state.avoided.get(ALL_MODELS, ()), *state.avoided.get(model, ())}


def to_avoid(state: SweepState, role: Role, shape: Shape | None) -> tuple[str, ...]:
    """Machines on which a new worker would be of no use: a pruner takes patches of every model that owes some."""
    if not state.avoided:
        return ()
    if role is Role.GRADE:
        return tuple(sorted(avoided(state, ALL_MODELS)))
    if shape is not None:
        return tuple(sorted(avoided(state, shape.model)))
    return tuple(sorted(_of_no_use(state, {patch.task.model for patch in state.owed_patches()})))


def slots(state: SweepState) -> int:
    """How many devices there are to share: without those of machines that no model with work left can use."""
    if not state.avoided:
        return state.policy.slots
    models = {work.context.shape.model for name in state.unfinished if (work := state.contexts[name])}
    nodes = state.policy.nodes
    useless = sum(nodes.get(node, 0) for node in _of_no_use(state, models - state.stranded.keys()))
    # One is left for the start that the backend answers by saying that no machine is left.
    return max(1, min(state.policy.slots, sum(nodes.values()) - useless)) if useless else state.policy.slots


def _of_no_use(state: SweepState, models: set[str]) -> set[str]:
    return set.intersection(*(avoided(state, model) for model in models or {ALL_MODELS}))


def could_not_start(state: SweepState, worker: WorkerState, node: str, failure: Failure) -> None:
    """A worker was not started because of its machine, or because no machine was left (`node` is empty)."""
    shape = worker.shape if failure.kind is FailureKind.SOURCE else None
    model = shape.model if shape is not None else ALL_MODELS
    if node:
        state.avoided.setdefault(model, {})[node] = failure.cause
    elif worker.role is Role.GRADE and worker.avoid:
        state.failed_starts[Role.GRADE] = state.policy.failed_starts
    else:
        _strand(state, model, worker.avoid, failure)


def could_not_do(state: SweepState, worker: WorkerState, task: WorkerTask, failure: Failure) -> None:
    """A task failed because of its worker's machine."""
    if failure.kind is FailureKind.OTHER_STORE or isinstance(task, GradeTask):
        model = ALL_MODELS
    elif isinstance(task, PruneTask):
        model = task.model
    else:
        model = state.contexts[task.context_id].context.shape.model
    if worker.node:
        state.avoided.setdefault(model, {})[worker.node] = failure.cause
    else:
        _strand(state, model, (), failure)


def _strand(state: SweepState, model: str, avoid: tuple[str, ...], failure: Failure) -> None:
    """No machine is left for a model, nor for any other that is avoided on the same machines. `avoid` is empty if
    there was only one machine."""
    for work in state.contexts.values():
        other = work.context.shape.model
        alike = other == model or model == ALL_MODELS if not avoid else avoided(state, other) >= set(avoid)
        if alike:
            causes = [*state.avoided.get(ALL_MODELS, {}).values(), *state.avoided.get(other, {}).values()]
            state.stranded.setdefault(other, causes[-1] if causes else failure.cause)
            state.reindex(work)
