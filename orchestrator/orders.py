"""What to do next, given the core's state: watch the workers, hand out work, start and retire workers, end.

The order is by urgency. Patches are made in grid order, just ahead of the engines; an engine of the model's whole shape
starts at once, while the first patches are being made. Every question asked on every event is answered by an index of
the state; those about who should be started are asked only when something happened that could change the answer.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.events import Assign, Command, Discard, Finish, Order, Retire, Role, Slice, StartWorker
from orchestrator.fleet import Life, WorkerState
from orchestrator.place import Demand, Idle, allot, choose, pruners_wanted, shard_length
from orchestrator.work import ContextWork, Patched, PatchWork, Piece, State
from workers.messages import Failure, GradeTask, Shape

WATCH_SECONDS = 1.0


def next_orders(state: State, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
    """Commands for the moment, each noted in `state` as it is given. `tasks` learns what slices and gradings serve."""
    if now - state.watched >= WATCH_SECONDS:
        state.watched, state.staffed = now, False
        yield from _watch(state, now)
    if state.stopping is None:
        yield from _assign_patches(state, now)
        yield from _assign_slices(state, now, tasks)
        yield from _assign_grading(state, now, tasks)
        if not state.staffed:
            state.staffed = True
            yield from _start_pruners(state, now)
            yield from _start_engines(state, now)
            yield from _start_grader(state, now)
    yield from _wind_up(state, now)


def _watch(state: State, now: float) -> Iterator[Command]:
    """Discard workers that do not come up, have fallen silent at work, or talk and get nowhere."""
    for known in state.fleet:
        patience = _patience(state, known)
        if patience is not None and now - known.since > patience:
            known.since = now
            yield Discard(
                known.worker, Failure("hang", f"{known.worker} was {known.life} and silent for {patience:.0f} s")
            )
        elif _engaged(known) and now - known.progressed > state.policy.stall_seconds:
            known.progressed = now
            cause = f"{known.worker} is alive and has generated nothing for {state.policy.stall_seconds:.0f} s"
            yield Discard(known.worker, Failure("hang", cause))


def _patience(state: State, known: WorkerState) -> float | None:
    if known.life is Life.IDLE:
        return None
    if known.life is Life.STARTING:
        return state.policy.start_seconds
    return state.policy.prune_seconds if known.role is Role.PRUNE else state.policy.silence_seconds


def _engaged(known: WorkerState) -> bool:
    return known.role is Role.ENGINE and known.life is Life.BUSY


def _give(state: State, known: WorkerState, task: Order, now: float) -> Assign:
    if known.life is Life.IDLE:
        state.fleet.become(known, Life.BUSY)
        known.since = known.progressed = now
    known.tasks[task.task_id] = task
    return Assign(known.worker, task)


def _start(
    state: State, role: Role, now: float, shape: Shape | None = None, patch_id: str | None = None
) -> StartWorker:
    known = WorkerState(state.name(role), role, now, now, shape)
    state.fleet.add(known)
    state.tally.engines_started += role is Role.ENGINE
    return StartWorker(known.worker, role, shape, patch_id)


def retire(state: State, known: WorkerState, now: float) -> Retire:
    """Ask a worker to hand in what it has and close; it gets nothing more."""
    if known.hungry:
        state.feed_on(known, False)
    state.fleet.become(known, Life.CLOSING)
    known.since = now
    return Retire(known.worker)


# --- pruning ----------------------------------------------------------------------------------------------------------


def _assign_patches(state: State, now: float) -> Iterator[Command]:
    for known in state.fleet.idle(Role.PRUNE):
        owed = owed_patches(state)
        patch = next((patch for patch in owed if patch.not_before <= now), None)
        if patch is not None:
            patch.state = Patched.MAKING
            # Each attempt is a task of its own, so that the end of an earlier one cannot be taken for its end.
            yield _give(state, known, replace(patch.task, task_id=f"{patch.task.task_id}-{patch.attempts + 1}"), now)
        elif not owed:
            yield retire(state, known, now)


def owed_patches(state: State) -> list[PatchWork]:
    """Patches to be made that draws wait for, most urgent first."""
    owed = [patch for name in state.coming if (patch := state.patches[name]).state is Patched.OWED]
    return sorted(owed, key=lambda patch: _urgency(state, patch))


def _urgency(state: State, patch: PatchWork) -> tuple[float, bool, int]:
    """First what engines will lack soonest: patches of the shape with the fewest ready per engine; then grid order.

    A shape of its own has no engine before it has a patch, so its patch comes as soon as every engine has one, where
    engines suffice for all shapes; else last.
    """
    work = state.by_patch[patch.task.patch_id][0]
    shape = work.context.shape
    engines = state.fleet.shapes.get(shape, 0)
    if not engines:
        return (0.0 if len(state.ready) <= state.policy.engines else math.inf, True, work.order)
    making = [name for name in state.coming if state.patches[name].state is Patched.MAKING]
    soon = sum(state.shape_of(name) == shape for name in making)
    return ((len(state.ready[shape]) + soon) / engines, False, work.order)


def _start_pruners(state: State, now: float) -> Iterator[Command]:
    if state.dead(Role.PRUNE) or not state.coming:
        return
    owed = len(owed_patches(state))
    fleet, slots = state.fleet, state.policy.slots
    idle = [] if any(state.ready.values()) else fleet.idle(Role.ENGINE)
    free = slots - fleet.count(Role.ENGINE) - fleet.count(Role.PRUNE)
    at_work = fleet.of(Role.PRUNE, Life.STARTING, Life.IDLE, Life.BUSY)
    unused = max(0, slots - state.policy.engines) + len(idle)
    wanted = pruners_wanted(owed + sum(bool(known.tasks) for known in at_work), slots, unused) - len(at_work)
    for _ in range(max(0, wanted)):
        if free > 0:
            free -= 1
            yield _start(state, Role.PRUNE, now)
        elif idle and not at_work:
            # Every slot holds an engine, and all of them wait for a patch.
            yield retire(state, idle.pop(), now)
            return


# --- evaluation -------------------------------------------------------------------------------------------------------


def _assign_slices(state: State, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
    for shape in [shape for shape, ready in state.ready.items() if ready]:
        for patch_id in [name for name in state.ready[shape] if state.hungry.get(name)]:
            for known in list(state.hungry[patch_id].values()):
                work = next((work for work in state.by_patch[patch_id] if work.fresh), None)
                if work is not None:
                    yield _give_fresh(state, known, work, now, tasks)
        if not state.staffed:
            yield from _place_idle(state, shape, now, tasks)


def _place_idle(state: State, shape: Shape, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
    """Give the idle engines of a shape something to do: first those that hold what is wanted, then the longest idle."""
    idle = [known for known in state.fleet.idle(Role.ENGINE) if known.shape == shape]
    if not idle:
        return
    waiting = {patch_id: _demand(state, shape, patch_id) for patch_id in state.ready[shape]}
    for known in sorted(idle, key=lambda known: (known.patch_id not in waiting, known.since)):
        demand = choose(Idle(known.worker, shape, known.patch_id, _crowd(state, known, now)), waiting.values())
        if demand is None:
            return  # nor is anything worth the while of those that idle since later
        if known.patch_id != demand.patch_id:
            state.fleet.take_weights(known, demand.patch_id)
        works = state.by_patch[demand.patch_id]
        work = next((work for work in works if work.fresh), None)
        if work is not None:
            yield _give_fresh(state, known, work, now, tasks)
        else:
            yield _give_lost(state, known, next(work for work in works if work.lost), now, tasks)
        if demand.patch_id in state.ready[shape]:
            waiting[demand.patch_id] = _demand(state, shape, demand.patch_id)
        else:
            del waiting[demand.patch_id]


def _crowd(state: State, known: WorkerState, now: float) -> float:
    """How many engines may share a variant: while patches are to come, and for a while, only a fair number."""
    assert known.shape is not None
    if not _coming(state, known.shape) or now - known.since > state.policy.patch_patience:
        return math.inf
    return max(1, _fair_share(state, known.shape))


def _fair_share(state: State, shape: Shape) -> int:
    """Engines of a shape for each of its variants that draws wait for, made or to be made, if they share alike."""
    wanted = {*state.ready[shape], *_coming(state, shape)}
    here = state.fleet.engines_of.items()
    away = sum(n for name, n in here if name not in wanted and state.shape_of(name) == shape)
    return (state.fleet.shapes.get(shape, 0) - away) // max(1, len(wanted))


def _coming(state: State, shape: Shape) -> list[str]:
    """Patches of a shape that will be made."""
    coming = () if state.dead(Role.PRUNE) else state.coming
    return [name for name in coming if state.shape_of(name) == shape]


def _give_fresh(
    state: State, known: WorkerState, work: ContextWork, now: float, tasks: dict[str, ContextWork]
) -> Assign:
    policy, patch_id = state.policy, work.context.patch_id
    # Engines that are still to come to this variant count, or the first would take what is theirs.
    engines = max(state.fleet.engines_of[patch_id], _fair_share(state, work.context.shape))
    length = shard_length(len(work.fresh), engines, policy.smallest_shard, policy.largest_shard)
    return _give_slice(state, known, work, Piece(work.take_fresh(length), 0), now, tasks)


def _give_lost(
    state: State, known: WorkerState, work: ContextWork, now: float, tasks: dict[str, ContextWork]
) -> Assign:
    """A piece that was lost travels alone, so that no other is lost with it."""
    return _give_slice(state, known, work, work.lost.popleft(), now, tasks)


def _give_slice(
    state: State, known: WorkerState, work: ContextWork, piece: Piece, now: float, tasks: dict[str, ContextWork]
) -> Assign:
    one = Slice(state.name("shard"), work.context.context_id, piece.numbers)
    state.begin(work, one.task_id, piece.numbers, piece.losses)
    tasks[one.task_id] = work
    state.feed_on(known, False)
    state.note(work)
    return _give(state, known, one, now)


def _demand(state: State, shape: Shape, patch_id: str) -> Demand:
    """What of a patch is ready to run."""
    return Demand(
        patch_id,
        shape,
        _tokens(state, patch_id),
        _draws(state, patch_id),
        state.fleet.engines_of.get(patch_id, 0),
        state.by_patch[patch_id][0].order,
    )


def _tokens(state: State, patch_id: str) -> float:
    return max(1.0, sum(work.tokens for work in state.by_patch[patch_id] if work.fresh or work.lost))


def _draws(state: State, patch_id: str) -> int:
    return sum(work.draws for work in state.by_patch[patch_id])


def _start_engines(state: State, now: float) -> Iterator[Command]:
    if state.dead(Role.ENGINE):
        return
    fleet, policy = state.fleet, state.policy
    engines = fleet.count(Role.ENGINE)
    room = min(policy.engines - engines, policy.slots - engines - fleet.count(Role.PRUNE))
    idle = fleet.idle(Role.ENGINE)
    if room <= 0 and not idle:
        return
    spent = [shape for shape in fleet.shapes if not state.ready.get(shape) and not _coming(state, shape)]
    useless = [known for known in idle if known.shape in spent]
    if room <= 0 and not useless:
        return
    work = _work_by_shape(state)
    # What engines have been given counts: they are in the right place.
    unfinished = {s: work.get(s, 0.0) + state.given.get(s, 0.0) for s in {**work, **state.given}}
    shares = allot(unfinished, min(policy.engines, policy.slots))
    lacking = [shape for shape in work if fleet.shapes.get(shape, 0) < shares[shape]]
    lacking.sort(key=lambda shape: (fleet.shapes.get(shape, 0) / shares[shape], -work[shape]))
    startable = [shape for shape in lacking if shape.whole or state.ready.get(shape)]
    if room <= 0:
        # Every place is taken: an idle engine of a shape without work makes room for one that has some.
        lacks = [shape for shape in startable if _worth_an_engine(state, shape, policy.largest_shard)]
        for known, _ in zip(useless, lacks, strict=False):
            yield retire(state, known, now)
        return
    for shape in startable:
        for _ in range(shares[shape] - fleet.shapes.get(shape, 0)):
            if room <= 0 or not _worth_an_engine(state, shape, policy.smallest_shard):
                break
            room -= 1
            # A whole engine is built from the model alone; any other needs a patch to show which blocks are gone.
            patch = None if shape.whole else next(iter(state.ready[shape]))
            yield _start(state, Role.ENGINE, now, shape, patch)


def _work_by_shape(state: State) -> dict[Shape, float]:
    """Expected tokens that wait, by shape: what is ready, and what will be as soon as its patch is made."""
    coming = () if state.dead(Role.PRUNE) else state.coming
    names = [name for ready in state.ready.values() for name in ready] + list(coming)
    work: dict[Shape, float] = {}
    for name in names:
        shape = state.shape_of(name)
        work[shape] = work.get(shape, 0.0) + _tokens(state, name)
    return work


def _worth_an_engine(state: State, shape: Shape, draws: int) -> bool:
    """Whether more than so many draws wait for each engine that this shape has."""
    here = state.fleet.shapes.get(shape, 0)
    names = [*state.ready.get(shape, ()), *state.coming]
    works = (work for name in names for work in state.by_patch[name] if work.context.shape == shape)
    return sum(work.draws for work in works) > here * draws


# --- grading ----------------------------------------------------------------------------------------------------------


def _assign_grading(state: State, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
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
        tasks[task.task_id] = work
        state.note(work)
        yield _give(state, known, task, now)


def _start_grader(state: State, now: float) -> Iterator[Command]:
    if state.dead(Role.GRADE) or state.fleet.count(Role.GRADE):
        return
    if state.unsettled and _reason_to_end(state) is None:
        yield _start(state, Role.GRADE, now)


# --- the end ----------------------------------------------------------------------------------------------------------


def _wind_up(state: State, now: float) -> Iterator[Command]:
    reason = _reason_to_end(state)
    if reason is None:
        return
    for known in state.fleet:
        if known.life is not Life.CLOSING:
            yield retire(state, known, now)
    if not len(state.fleet) and not state.recounting:
        yield Finish(reason)


def _reason_to_end(state: State) -> str | None:
    if state.stopping is not None:
        return state.stopping
    if state.recounting or state.fleet.at_work:
        return None
    if not state.unsettled:
        return "done"
    dead = [role for role in Role if state.dead(role)]
    if not dead:
        return None
    able = (
        (not state.dead(Role.PRUNE) and bool(owed_patches(state)))
        or (not state.dead(Role.ENGINE) and any(state.ready.values()))
        or (not state.dead(Role.GRADE) and bool(state.ungraded))
    )
    return None if able else f"no {' and no '.join(dead)} worker comes up"
