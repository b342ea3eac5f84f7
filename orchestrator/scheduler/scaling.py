"""How many workers there are: pruners ahead of need, engines in proportion to their shapes' work, one grader.

For each model whose dense variant is to be evaluated an engine starts at once, while the other devices make patches.
"""

from collections.abc import Iterator

from orchestrator.scheduler import nodes
from orchestrator.scheduler.events import Command, Role
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.placement import pruners_wanted, share_engines
from orchestrator.scheduler.state import SweepState
from orchestrator.scheduler.transitions import retire, start
from workers.messages import Shape


def surplus_pruners(state: SweepState) -> int:
    """How many more devices prune than should; negative if fewer do."""
    fleet, policy = state.fleet, state.policy
    pruners = fleet.of(Role.PRUNE, Phase.STARTING, Phase.IDLE, Phase.BUSY)
    patches = len(state.owed_patches()) + sum(bool(worker.tasks) for worker in pruners)
    runnable = sum(map(len, state.runnable.values()))
    supplied = min(policy.engines, runnable + len(_unmade_dense(state)))
    return len(pruners) - pruners_wanted(patches, nodes.slots(state), supplied)


def _unmade_dense(state: SweepState) -> list[Shape]:
    """Shapes of the dense variants whose patches are not made yet. They take seconds, since nothing is pruned."""
    return [state.shape_of(name) for name in state.unmade if state.patches[name].request.spec.is_dense]


def start_pruners(state: SweepState, now: float) -> Iterator[Command]:
    """Start the pruners that are wanted, as far as slots are free."""
    if state.failing(Role.PRUNE) or not state.unmade:
        return
    fleet = state.fleet
    idle = [] if any(state.runnable.values()) else fleet.idle(Role.ENGINE)
    for pruner in fleet.of(Role.PRUNE, Phase.STARTING):
        # It may only run where an engine waits for the very patch: the engine can be anywhere.
        waits = pruner.avoid and now - pruner.started > state.policy.patch_patience
        if waits and (engine := next((one for one in idle if one.node not in pruner.avoid), None)) is not None:
            idle.remove(engine)
            yield retire(state, engine, now)
    free = nodes.slots(state) - fleet.count(Role.ENGINE) - fleet.count(Role.PRUNE)
    for _ in range(-surplus_pruners(state)):
        if free > 0:
            free -= 1
            yield start(state, Role.PRUNE, now)
        elif idle and not fleet.of(Role.PRUNE, Phase.STARTING, Phase.IDLE, Phase.BUSY):
            # Every slot has an engine, and nothing can be evaluated before a patch is made.
            yield retire(state, idle.pop(), now)
            return


def start_engines(state: SweepState, now: float) -> Iterator[Command]:
    """Retire engines that have no use, and start those that are wanted, as far as slots are free."""
    fleet, policy = state.fleet, state.policy
    engines = fleet.count(Role.ENGINE)
    room = min(policy.engines - engines, nodes.slots(state) - engines - fleet.count(Role.PRUNE))
    idle = fleet.idle(Role.ENGINE)
    if room <= 0 and not idle:
        return
    work = _waiting_by_shape(state)
    if not work:
        return
    for worker in _surplus_engines(state, idle, now):
        state.failed_starts[Role.ENGINE] = 0  # it frees a device, so an engine that found none may now start
        yield retire(state, worker, now)
    if room <= 0 or state.failing(Role.ENGINE):
        return
    unfinished = dict(work)
    for patch_id, tokens in state.in_flight_tokens.items():  # or engines at work would count as too many
        shape = state.shape_of(patch_id)
        unfinished[shape] = unfinished.get(shape, 0.0) + tokens
    shares = share_engines(unfinished, min(policy.engines, nodes.slots(state)))
    # With fewer engines than shapes, work that can be evaluated now or in a moment goes before larger work without a
    # patch, whose engine would wait, retire, and start again.
    now_runnable = {shape for shape, patches in state.runnable.items() if patches}
    soon = now_runnable.union(_unmade_dense(state))
    wanted = {shape: max(shares[shape], shape in soon) for shape in work}
    lacking = [shape for shape in work if wanted[shape]]
    while room > 0 and lacking:
        # In turn, so that each shape has its share of the engines that start first.
        shape = min(
            lacking, key=lambda s: (fleet.shapes.get(s, 0) / wanted[s], s not in now_runnable, s not in soon, -work[s])
        )
        if fleet.shapes.get(shape, 0) >= wanted[shape] or not _worth_an_engine(state, shape):
            lacking.remove(shape)
            continue
        room -= 1
        yield start(state, Role.ENGINE, now, shape)


def _surplus_engines(state: SweepState, idle: list[WorkerState], now: float) -> Iterator[WorkerState]:
    """Idle engines whose shape has no draws that wait or will; and, after a while, idle engines that wait for a patch
    while another shape has runnable draws and no engine at all."""
    starving = sum(bool(patches) and not state.fleet.shapes.get(shape) for shape, patches in state.runnable.items())
    upcoming = {shape: bool(state.upcoming(shape)) for shape, patches in state.runnable.items() if not patches}
    for worker in idle:
        if worker.shape is None or worker.shape not in upcoming:
            continue
        if not upcoming[worker.shape]:
            yield worker
        elif starving > 0 and now - worker.since > state.policy.patch_patience:
            starving -= 1
            yield worker


def _waiting_by_shape(state: SweepState) -> dict[Shape, float]:
    """Shape -> expected tokens of the draws that wait, whether their patch is in the store or still to be made."""
    names = {shape: [*patches, *state.upcoming(shape)] for shape, patches in state.runnable.items()}
    return {shape: sum(map(state.waiting_tokens, waiting)) for shape, waiting in names.items() if waiting}


def _worth_an_engine(state: SweepState, shape: Shape) -> bool:
    """Whether more draws wait than the smallest shard for each engine that this shape has already. Of a suspected
    variant one draw may run at a time."""
    engines = state.fleet.shapes.get(shape, 0)
    names = [*state.runnable.get(shape, ()), *state.unmade]
    draws = sum(
        1 if state.patches[name].suspected else sum(work.waiting_draws for work in state.by_patch[name])
        for name in names
        if state.shape_of(name) == shape
    )
    return draws > engines * state.policy.smallest_shard


def start_grader(state: SweepState, now: float) -> Iterator[Command]:
    if not state.failing(Role.GRADE) and not state.fleet.count(Role.GRADE):
        yield start(state, Role.GRADE, now)
