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
    if state.dead(Role.PRUNE) or not state.coming:
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
    if state.dead(Role.ENGINE):
        return
    fleet, policy = state.fleet, state.policy
    engines = fleet.count(Role.ENGINE)
    room = min(policy.engines - engines, policy.slots - engines - fleet.count(Role.PRUNE))
    idle = fleet.idle(Role.ENGINE)
    if room <= 0 and not idle:
        return
    spent = [shape for shape in fleet.shapes if not state.ready.get(shape) and not state.to_come(shape)]
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
        work[shape] = work.get(shape, 0.0) + state.tokens(name)
    return work


def _worth_an_engine(state: State, shape: Shape, draws: int) -> bool:
    """Whether more than so many draws wait for each engine that this shape has."""
    here = state.fleet.shapes.get(shape, 0)
    names = [*state.ready.get(shape, ()), *state.coming]
    works = (work for name in names for work in state.by_patch[name] if work.context.shape == shape)
    return sum(work.draws for work in works) > here * draws


def start_grader(state: State, now: float) -> Iterator[Command]:
    if not state.dead(Role.GRADE) and not state.fleet.count(Role.GRADE):
        yield _start(state, Role.GRADE, now)
