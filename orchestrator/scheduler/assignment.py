"""Who gets which work: idle pruners the most urgent patch, engines draws, graders what is quiet.

Decisions that need numbers alone stand in place.py.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.scheduler.events import Assign, Command, Role, ShardNumbers, WorkerTask
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.placement import Demand, Idle, choose_variant, help_laggard, shard_length
from orchestrator.scheduler.scaling import retire, surplus_pruners
from orchestrator.scheduler.state import SweepState
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, RetryGroup
from workers.messages import GradeTask, Shape


def _give(state: SweepState, known: WorkerState, task: WorkerTask, now: float) -> Assign:
    if known.phase is Phase.IDLE:
        state.fleet.set_phase(known, Phase.BUSY)
        known.since = known.progressed = now
    known.tasks[task.task_id] = task
    return Assign(known.worker, task)


def assign_patches(state: SweepState, now: float) -> Iterator[Command]:
    for known in state.fleet.idle(Role.PRUNE):
        owed, making = state.owed_patches(), _making(state)
        due = [patch for patch in owed if patch.not_before <= now]
        if surplus_pruners(state) > 0:
            yield retire(state, known, now)
        elif due:
            patch = min(due, key=lambda patch: _urgency(state, patch, making))
            patch.state = PatchState.MAKING
            # Each attempt is a task of its own, so that the end of an earlier one cannot be taken for its end.
            yield _give(state, known, replace(patch.task, task_id=f"{patch.task.task_id}-{patch.attempts + 1}"), now)


def _making(state: SweepState) -> Counter[Shape]:
    """How many patches of each shape are being made."""
    return Counter(state.shape_of(name) for name in state.coming if state.patches[name].state is PatchState.MAKING)


def _urgency(state: SweepState, patch: PatchWork, making: Counter[Shape]) -> tuple[float, bool, int]:
    """First what engines will lack soonest: patches of the shape with the fewest ready per engine; then grid order.

    The patch of a shape that has no engine comes as soon as each engine has one, where engines suffice for all shapes;
    else last.
    """
    work = state.by_patch[patch.task.patch_id][0]
    shape = work.context.shape
    engines = state.fleet.shapes.get(shape, 0)
    if not engines:
        return (0.0 if len(state.ready) <= state.policy.engines else math.inf, True, work.order)
    return ((len(state.ready[shape]) + making[shape]) / engines, False, work.order)


def assign_slices(state: SweepState, now: float) -> Iterator[Command]:
    for shape in [shape for shape, ready in state.ready.items() if ready]:
        for patch_id in [name for name in state.ready[shape] if state.hungry.get(name)]:
            for known in list(state.hungry[patch_id].values()):
                work = next((work for work in state.by_patch[patch_id] if work.fresh), None)
                if work is not None and (other := _help_laggard(state, shape, patch_id)) is not None:
                    state.set_hungry(known, False)
                    state.fleet.set_patch(known, other.patch_id)
                elif work is not None:
                    yield _give_fresh(state, known, work, now)
        if not state.staffed:
            yield from _place_idle(state, shape, now)


def _help_laggard(state: SweepState, shape: Shape, patch_id: str) -> Demand | None:
    """The variant that one of a patch's engines should go over to as soon as what it has is done."""
    if state.fleet.engines_of[patch_id] < 2:
        return None  # as `help_laggard` would say, without asking what the others lack
    return help_laggard(_demand(state, shape, patch_id), (_demand(state, shape, name) for name in state.ready[shape]))


def _place_idle(state: SweepState, shape: Shape, now: float) -> Iterator[Command]:
    """Give the idle engines of a shape something to do: first those that hold what is wanted, then the longest idle."""
    idle = [known for known in state.fleet.idle(Role.ENGINE) if known.shape == shape]
    if not idle:
        return
    waiting = {patch_id: _demand(state, shape, patch_id) for patch_id in state.ready[shape]}
    for known in sorted(idle, key=lambda known: (known.patch_id not in waiting, known.since)):
        demand = choose_variant(Idle(known.worker, shape, known.patch_id, _crowd(state, known, now)), waiting.values())
        if demand is None:
            return  # nor is anything worth the while of those that idle since later
        if known.patch_id != demand.patch_id:
            state.fleet.set_patch(known, demand.patch_id)
        works = state.by_patch[demand.patch_id]
        work = next((work for work in works if work.fresh), None)
        if work is not None:
            yield _give_fresh(state, known, work, now)
        else:
            yield _give_lost(state, known, next(work for work in works if work.lost), now)
        if demand.patch_id in state.ready[shape]:
            waiting[demand.patch_id] = _demand(state, shape, demand.patch_id)
        else:
            del waiting[demand.patch_id]


def _crowd(state: SweepState, known: WorkerState, now: float) -> float:
    """How many engines may share a variant: while patches are to come, and for a while, only a fair number."""
    assert known.shape is not None
    if not state.to_come(known.shape) or now - known.since > state.policy.patch_patience:
        return math.inf
    return max(1, _fair_share(state, known.shape))


def _fair_share(state: SweepState, shape: Shape) -> int:
    """Engines of a shape for each of its variants that draws wait for, made or to be made, if they share alike."""
    wanted = {*state.ready[shape], *state.to_come(shape)}
    here = state.fleet.engines_of.items()
    away = sum(n for name, n in here if name not in wanted and state.shape_of(name) == shape)
    return (state.fleet.shapes.get(shape, 0) - away) // max(1, len(wanted))


def _give_fresh(state: SweepState, known: WorkerState, work: ContextWork, now: float) -> Assign:
    policy, patch_id = state.policy, work.context.patch_id
    # Engines that are still to come to this variant count, or the first would take what is theirs.
    engines = max(state.fleet.engines_of[patch_id], _fair_share(state, work.context.shape))
    length = shard_length(len(work.fresh), engines, policy.smallest_shard, policy.largest_shard)
    return _give_slice(state, known, work, RetryGroup(work.take_fresh(length), 0), now)


def _give_lost(state: SweepState, known: WorkerState, work: ContextWork, now: float) -> Assign:
    """A piece that was lost travels alone, so that no other is lost with it."""
    return _give_slice(state, known, work, work.lost.popleft(), now)


def _give_slice(
    state: SweepState,
    known: WorkerState,
    work: ContextWork,
    piece: RetryGroup,
    now: float,
) -> Assign:
    one = ShardNumbers(state.name("shard"), work.context.context_id, piece.numbers)
    state.begin(work, one.task_id, piece.numbers, piece.losses)
    state.work_of[one.task_id] = work
    state.set_hungry(known, False)
    state.note(work)
    return _give(state, known, one, now)


def _demand(state: SweepState, shape: Shape, patch_id: str) -> Demand:
    """What of a patch is ready to run."""
    return Demand(
        patch_id,
        shape,
        state.tokens(patch_id),
        sum(work.draws for work in state.by_patch[patch_id]),
        state.given.get(patch_id, 0.0),
        state.fleet.engines_of.get(patch_id, 0),
        state.by_patch[patch_id][0].order,
    )


def assign_grading(state: SweepState, now: float) -> Iterator[Command]:
    """Grade what is quiet first: a context that still runs will have to be graded again."""
    if not state.ungraded:
        return
    for known in state.fleet.idle(Role.GRADE):
        dirty = [state.contexts[name] for name in state.ungraded]
        if not dirty:
            return
        work = min(dirty, key=lambda work: (bool(work.running), work.order))
        context = work.context
        task = GradeTask(state.name("grade"), context.context_id, context.answer_context_id, work.golds)
        work.ungraded, work.grading = False, task.task_id
        state.work_of[task.task_id] = work
        state.note(work)
        yield _give(state, known, task, now)
