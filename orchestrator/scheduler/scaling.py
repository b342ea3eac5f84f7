"""How many workers there are: pruners ahead of need, engines in proportion to their shapes' work, one grader.

An engine starts at once for each model whose dense variant is to be evaluated, while the other devices make patches.
"""

from collections.abc import Iterator

from orchestrator.scheduler.events import Command, Retire, Role, StartWorker
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.placement import pruners_wanted, share_engines
from orchestrator.scheduler.state import SweepState
from workers.messages import Shape


def _start(state: SweepState, role: Role, now: float, shape: Shape | None = None) -> StartWorker:
    known = WorkerState(state.name(role), role, now, now, shape)
    state.fleet.add(known)
    state.counters.engines_started += role is Role.ENGINE
    return StartWorker(known.worker, role, shape)


def retire(state: SweepState, known: WorkerState, now: float) -> Retire:
    """Ask a worker to hand in what it has and close; it gets nothing more."""
    if known.hungry:
        state.set_hungry(known, False)
    state.fleet.set_phase(known, Phase.CLOSING)
    known.since = now
    return Retire(known.worker)


def surplus_pruners(state: SweepState) -> int:
    """How many more devices prune than should; negative if fewer."""
    fleet, policy = state.fleet, state.policy
    at_work = fleet.of(Role.PRUNE, Phase.STARTING, Phase.IDLE, Phase.BUSY)
    patches = len(state.owed_patches()) + sum(bool(known.tasks) for known in at_work)
    ready = sum(map(len, state.ready.values()))
    supplied = min(policy.engines, ready + len(_unpruned(state)))
    return len(at_work) - pruners_wanted(patches, policy.slots, supplied)


def _unpruned(state: SweepState) -> list[Shape]:
    """Shapes of the dense variants whose patches are to come: those need no pruning, and so are there in a moment."""
    return [state.shape_of(name) for name in state.coming if state.patches[name].task.spec.is_dense]


def start_pruners(state: SweepState, now: float) -> Iterator[Command]:
    if state.failing(Role.PRUNE) or not state.coming:
        return
    fleet = state.fleet
    idle = [] if any(state.ready.values()) else fleet.idle(Role.ENGINE)
    free = state.policy.slots - fleet.count(Role.ENGINE) - fleet.count(Role.PRUNE)
    for _ in range(-surplus_pruners(state)):
        if free > 0:
            free -= 1
            yield _start(state, Role.PRUNE, now)
        elif idle and not fleet.of(Role.PRUNE, Phase.STARTING, Phase.IDLE, Phase.BUSY):
            # Every slot holds an engine, and all of them wait for a patch.
            yield retire(state, idle.pop(), now)
            return


def start_engines(state: SweepState, now: float) -> Iterator[Command]:
    fleet, policy = state.fleet, state.policy
    engines = fleet.count(Role.ENGINE)
    room = min(policy.engines - engines, policy.slots - engines - fleet.count(Role.PRUNE))
    idle = fleet.idle(Role.ENGINE)
    if room <= 0 and not idle:
        return
    work = _work_by_shape(state)
    if not work:
        return
    for known in _useless(state, idle, now):  # they make room, also for one that waits for a device that is not there
        state.failed_starts[Role.ENGINE] = 0  # a device is free again: what could not start may now
        yield retire(state, known, now)
    if room <= 0 or state.failing(Role.ENGINE):
        return
    unfinished = dict(work)
    for name, tokens in state.given.items():  # engines that have been given something are in the right place
        shape = state.shape_of(name)
        unfinished[shape] = unfinished.get(shape, 0.0) + tokens
    shares = share_engines(unfinished, min(policy.engines, policy.slots))
    # Where engines are fewer than shapes, what can be evaluated goes before what is more and has no patch yet: that
    # would have its engine wait, leave in the end, and start again.
    ready = {shape for shape, patches in state.ready.items() if patches}
    soon = ready.union(_unpruned(state))
    wanted = {shape: max(shares[shape], shape in soon) for shape in work}
    lacking = [shape for shape in work if wanted[shape]]
    while room > 0 and lacking:
        # In turn, so that each has its share of those that start first.
        shape = min(
            lacking, key=lambda s: (fleet.shapes.get(s, 0) / wanted[s], s not in ready, s not in soon, -work[s])
        )
        if fleet.shapes.get(shape, 0) >= wanted[shape] or not _worth_an_engine(state, shape):
            lacking.remove(shape)
            continue
        room -= 1
        yield _start(state, Role.ENGINE, now, shape)


def _useless(state: SweepState, idle: list[WorkerState], now: float) -> Iterator[WorkerState]:
    """Idle engines of a shape for which no draw waits or will; and, after a while, those that wait for a patch while
    another shape's draws have no engine at all."""
    starving = sum(bool(ready) and not state.fleet.shapes.get(shape) for shape, ready in state.ready.items())
    waiting = {shape: bool(state.to_come(shape)) for shape, ready in state.ready.items() if not ready}
    for known in idle:
        if known.shape is None or known.shape not in waiting:
            continue
        if not waiting[known.shape]:
            yield known
        elif starving > 0 and now - known.since > state.policy.patch_patience:
            starving -= 1
            yield known


def _work_by_shape(state: SweepState) -> dict[Shape, float]:
    """Expected tokens that wait, by shape: what is ready, and what will be as soon as its patch is made."""
    names = {shape: [*ready, *state.to_come(shape)] for shape, ready in state.ready.items()}
    return {shape: sum(map(state.tokens, waiting)) for shape, waiting in names.items() if waiting}


def _worth_an_engine(state: SweepState, shape: Shape) -> bool:
    """Whether more than the smallest shard waits for each engine that this shape has."""
    here = state.fleet.shapes.get(shape, 0)
    names = [*state.ready.get(shape, ()), *state.coming]
    works = (work for name in names for work in state.by_patch[name] if work.context.shape == shape)
    return sum(work.draws for work in works) > here * state.policy.smallest_shard


def start_grader(state: SweepState, now: float) -> Iterator[Command]:
    if not state.failing(Role.GRADE) and not state.fleet.count(Role.GRADE):
        yield _start(state, Role.GRADE, now)
