"""How many workers there are: pruners just ahead of need, engines in proportion to their shapes' work, one grader.

An engine of the model's whole shape starts at once, while the first patches are being made.
"""

from collections.abc import Iterator

from orchestrator.events import Command, Retire, Role, StartWorker
from orchestrator.fleet import Life, WorkerState
from orchestrator.place import allot, pruners_wanted
from orchestrator.state import State
from workers.messages import Shape


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


def start_pruners(state: State, now: float) -> Iterator[Command]:
    if state.failing(Role.PRUNE) or not state.coming:
        return
    owed = len(state.owed_patches())
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


def start_engines(state: State, now: float) -> Iterator[Command]:
    fleet, policy = state.fleet, state.policy
    engines = fleet.count(Role.ENGINE)
    room = min(policy.engines - engines, policy.slots - engines - fleet.count(Role.PRUNE))
    idle = fleet.idle(Role.ENGINE)
    if room <= 0 and not idle:
        return
    useless = list(_useless(state, idle, now))
    if room <= 0 and not useless:
        return
    work = _work_by_shape(state)
    if work:  # they make room, also for an engine that waits for a device that is not there
        for known in useless:
            state.failed_starts[Role.ENGINE] = 0  # a device is free again: what could not start may now
            yield retire(state, known, now)
    if state.failing(Role.ENGINE):
        return
    # What engines have been given counts: they are in the right place.
    unfinished = {s: work.get(s, 0.0) + state.given.get(s, 0.0) for s in {**work, **state.given}}
    shares = allot(unfinished, min(policy.engines, policy.slots))
    lacking = [shape for shape in work if fleet.shapes.get(shape, 0) < shares[shape]]
    lacking.sort(key=lambda shape: (fleet.shapes.get(shape, 0) / shares[shape], -work[shape]))
    startable = [shape for shape in lacking if shape.whole or state.ready.get(shape)]
    for shape in startable:
        for _ in range(shares[shape] - fleet.shapes.get(shape, 0)):
            if room <= 0 or not _worth_an_engine(state, shape):
                break
            room -= 1
            # A whole engine is built from the model alone; any other needs a patch to show which blocks are gone.
            patch = None if shape.whole else next(iter(state.ready[shape]))
            yield _start(state, Role.ENGINE, now, shape, patch)


def _useless(state: State, idle: list[WorkerState], now: float) -> Iterator[WorkerState]:
    """Idle engines of a shape for which no draw waits or will; and, after a while, those that wait for a patch while
    another shape's draws have no engine at all."""
    starving = sum(bool(ready) and not state.fleet.shapes.get(shape) for shape, ready in state.ready.items())
    for known in idle:
        if known.shape is None or state.ready.get(known.shape):
            continue
        if not state.to_come(known.shape):
            yield known
        elif starving > 0 and now - known.since > state.policy.patch_patience:
            starving -= 1
            yield known


def _work_by_shape(state: State) -> dict[Shape, float]:
    """Expected tokens that wait, by shape: what is ready, and what will be as soon as its patch is made."""
    names = {shape: [*ready, *state.to_come(shape)] for shape, ready in state.ready.items()}
    return {shape: sum(map(state.tokens, waiting)) for shape, waiting in names.items() if waiting}


def _worth_an_engine(state: State, shape: Shape) -> bool:
    """Whether more than the smallest shard waits for each engine that this shape has."""
    here = state.fleet.shapes.get(shape, 0)
    names = [*state.ready.get(shape, ()), *state.coming]
    works = (work for name in names for work in state.by_patch[name] if work.context.shape == shape)
    return sum(work.draws for work in works) > here * state.policy.smallest_shard


def start_grader(state: State, now: float) -> Iterator[Command]:
    if not state.failing(Role.GRADE) and not state.fleet.count(Role.GRADE):
        yield _start(state, Role.GRADE, now)
