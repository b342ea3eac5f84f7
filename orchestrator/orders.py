"""What to do next, given the core's state: watch the workers, hand out work, start and retire workers, end.

The order is by urgency. Patches are made in grid order, just ahead of the engines; an engine of the model's whole shape
starts at once, while the first patches are being made.
"""

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.events import Assign, Command, Discard, Finish, Retire, Role, StartWorker
from orchestrator.place import Demand, Idle, choose, shape_to_start, shard_length
from orchestrator.work import ContextWork, Life, Patched, PatchWork, State, WorkerState
from workers.messages import Failure, GradeTask, PruneTask, Shape, Shard

WATCH_SECONDS = 1.0


def next_orders(state: State, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
    """Commands for the moment, each noted in `state` as it is given. `tasks` learns what shards and gradings serve."""
    if now - state.watched >= WATCH_SECONDS:
        state.watched = now
        yield from _watch(state, now)
    if state.stopping is None:
        yield from _assign_patches(state, now)
        yield from _assign_shards(state, now, tasks)
        yield from _assign_grading(state, now, tasks)
        yield from _start_pruner(state, now)
        yield from _start_engines(state, now)
        yield from _start_grader(state, now)
    yield from _wind_up(state, now)


def _watch(state: State, now: float) -> Iterator[Command]:
    """Discard workers that do not come up, or have fallen silent at work."""
    for known in list(state.workers.values()):
        patience = _patience(state, known)
        if patience is not None and now - known.since > patience:
            known.since = now
            yield Discard(
                known.worker,
                Failure("hang", f"{known.worker} was {known.life} and silent for {patience:.0f} s"),
            )


def _patience(state: State, known: WorkerState) -> float | None:
    if known.life is Life.IDLE:
        return None
    if known.life is Life.STARTING:
        return state.policy.start_seconds
    return state.policy.prune_seconds if isinstance(known.task, PruneTask) else state.policy.silence_seconds


def _give(known: WorkerState, task: Shard | GradeTask | PruneTask, now: float) -> Assign:
    known.life, known.task, known.since = Life.BUSY, task, now
    return Assign(known.worker, task)


def _start(
    state: State, role: Role, now: float, shape: Shape | None = None, patch_id: str | None = None
) -> StartWorker:
    worker = state.name(role)
    state.workers[worker] = WorkerState(worker, role, now, shape)
    state.tally.engines_started += role is Role.ENGINE
    return StartWorker(worker, role, shape, patch_id)


def _retire(known: WorkerState, now: float) -> Retire:
    known.life, known.since = Life.CLOSING, now
    return Retire(known.worker)


# --- pruning ----------------------------------------------------------------------------------------------------------


def _assign_patches(state: State, now: float) -> Iterator[Command]:
    for known in state.idle(Role.PRUNE):
        patch = next((p for p in _owed_patches(state) if p.not_before <= now), None)
        if patch is not None:
            patch.state = Patched.MAKING
            # Each attempt is a task of its own, so that the end of an earlier one cannot be taken for its end.
            yield _give(known, replace(patch.task, task_id=f"{patch.task.task_id}-{patch.attempts + 1}"), now)
        elif not any(True for _ in _owed_patches(state)):
            yield _retire(known, now)


def _owed_patches(state: State) -> Iterator[PatchWork]:
    """Patches to be made that draws wait for, in grid order."""
    return (p for p in state.patches.values() if p.state is Patched.OWED and state.wanted(p))


def _start_pruner(state: State, now: float) -> Iterator[Command]:
    if state.dead(Role.PRUNE) or _count(state, Role.PRUNE) or next(_owed_patches(state), None) is None:
        return
    if _count(state, Role.ENGINE) < state.policy.slots:
        yield _start(state, Role.PRUNE, now)
    elif not _demands(state) and (idle := state.idle(Role.ENGINE)):
        yield _retire(idle[0], now)  # every slot holds an engine, and all of them wait for a patch


# --- evaluation -------------------------------------------------------------------------------------------------------


def _assign_shards(state: State, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
    for known in state.idle(Role.ENGINE):
        assert known.shape is not None
        demand = choose(Idle(known.worker, known.shape, known.patch_id), _demands(state))
        if demand is None:
            continue
        work = next(work for work in state.by_patch[demand.patch_id] if work.draws)
        engines = demand.engines + (known.patch_id != demand.patch_id)
        policy = state.policy
        piece = work.take(shard_length(work.draws, engines, policy.smallest_shard, policy.largest_shard))
        shard = Shard(state.name("shard"), work.context, piece.items)
        work.running[shard.task_id] = piece
        tasks[shard.task_id] = work
        known.patch_id = demand.patch_id
        yield _give(known, shard, now)


def _demands(state: State) -> list[Demand]:
    """What is ready to run, by patch."""
    engines: dict[str | None, int] = {}
    for known in state.workers.values():
        if known.role is Role.ENGINE:
            engines[known.patch_id] = engines.get(known.patch_id, 0) + 1
    found = []
    for patch_id, works in state.by_patch.items():
        tokens = sum(work.tokens for work in works)
        if any(work.draws for work in works) and state.patches[patch_id].state is Patched.HELD:
            found.append(
                Demand(patch_id, works[0].context.shape, max(tokens, 1), engines.get(patch_id, 0), works[0].order)
            )
    return found


def _prospects(state: State) -> list[Demand]:
    """What is ready to run, or will be as soon as a patch is made that leaves the model's shape whole."""
    ready = _demands(state)
    if state.dead(Role.PRUNE):
        return ready
    coming = [
        Demand(patch_id, works[0].context.shape, max(1, sum(work.tokens for work in works)), 0, works[0].order)
        for patch_id, works in state.by_patch.items()
        if works[0].context.shape.whole
        and state.patches[patch_id].state in (Patched.OWED, Patched.MAKING)
        and any(work.draws for work in works)
    ]
    return ready + coming


def _start_engines(state: State, now: float) -> Iterator[Command]:
    if state.dead(Role.ENGINE):
        return
    engines, pruners = _count(state, Role.ENGINE), _count(state, Role.PRUNE)
    room = min(state.policy.engines - engines, state.policy.slots - engines - pruners)
    prospects = _prospects(state) if room > 0 or state.idle(Role.ENGINE) else []
    here = [s.shape for s in state.workers.values() if s.role is Role.ENGINE and s.shape and s.life is not Life.CLOSING]
    if room <= 0:
        # Every place is taken: an idle engine of a shape without work makes room for one that has some.
        shapes = {demand.shape for demand in prospects}
        useless = [s for s in state.idle(Role.ENGINE) if s.shape not in shapes]
        if useless and shapes - set(here):
            yield _retire(useless[0], now)
        return
    for _ in range(room):
        unserved = [demand for demand in prospects if demand.shape not in here]
        waiting = sum(work.draws for work in state.contexts.values())
        if not unserved and waiting <= len(here) * state.policy.smallest_shard:
            return
        shape = shape_to_start(unserved or prospects, here)
        if shape is None:
            return
        here.append(shape)
        # A whole engine is built from the model alone; any other needs a patch to show which blocks are gone.
        patch = None if shape.whole else next(d.patch_id for d in prospects if d.shape == shape)
        yield _start(state, Role.ENGINE, now, shape, patch)


# --- grading ----------------------------------------------------------------------------------------------------------


def _assign_grading(state: State, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
    """Grade what is quiet first: a context that still runs will have to be graded again."""
    for known in state.idle(Role.GRADE):
        dirty = (w for w in state.contexts.values() if w.ungraded and w.grading is None)
        work = min(dirty, key=lambda w: (bool(w.running), w.order), default=None)
        if work is None:
            return
        context = work.context
        task = GradeTask(state.name("grade"), context.context_id, context.answer_context_id, work.golds)
        work.ungraded, work.grading = False, task.task_id
        tasks[task.task_id] = work
        yield _give(known, task, now)


def _start_grader(state: State, now: float) -> Iterator[Command]:
    if state.dead(Role.GRADE) or _count(state, Role.GRADE):
        return
    if any(not work.settled() for work in state.contexts.values()) and _reason_to_end(state) is None:
        yield _start(state, Role.GRADE, now)


def _count(state: State, role: Role) -> int:
    return sum(known.role is role for known in state.workers.values())


# --- the end ----------------------------------------------------------------------------------------------------------


def _wind_up(state: State, now: float) -> Iterator[Command]:
    reason = _reason_to_end(state)
    if reason is None:
        return
    for known in state.workers.values():
        if known.life is not Life.CLOSING:
            yield _retire(known, now)
    if not state.workers and not state.recounting:
        yield Finish(reason)


def _reason_to_end(state: State) -> str | None:
    if state.stopping is not None:
        return state.stopping
    if state.recounting or any(s.life in (Life.BUSY, Life.STARTING) for s in state.workers.values()):
        return None
    if all(work.settled() for work in state.contexts.values()):
        return "done"
    dead = [role for role in Role if state.dead(role)]
    able = (
        (not state.dead(Role.PRUNE) and next(_owed_patches(state), None) is not None)
        or (not state.dead(Role.ENGINE) and bool(_demands(state)))
        or (not state.dead(Role.GRADE) and any(work.ungraded for work in state.contexts.values()))
    )
    return f"no {' and no '.join(dead)} worker comes up" if dead and not able else None
