"""Who gets which work: idle pruners the most urgent patches, engines draws, graders the contexts that no longer run.

Decisions that need nothing but numbers are in placement.py.
"""

import math
from collections import Counter
from collections.abc import Iterator

from orchestrator.scheduler import nodes
from orchestrator.scheduler.events import Assign, Command, Role, ShardNumbers
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.placement import Demand, IdleEngine, choose_variant, help_laggard, shard_length, share_out
from orchestrator.scheduler.scaling import surplus_pruners
from orchestrator.scheduler.state import SweepState
from orchestrator.scheduler.transitions import assign, retire, switch
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, RetryGroup
from workers.messages import GradeTask, PruneTask, Shape


def assign_patches(state: SweepState, now: float) -> Iterator[Command]:
    """Give each idle pruner patches that its machine can make; retire it if there are none, or pruners are too many."""
    for worker in state.fleet.idle(Role.PRUNE):
        owed = state.owed_patches()
        possible = [patch for patch in owed if not nodes.useless(state, worker, patch)]
        due = [patch for patch in possible if patch.not_before <= now]
        if surplus_pruners(state) > 0 or (owed and not possible):
            yield retire(state, worker, now)
        elif due:
            yield _assign_pruning(state, worker, due, now)


def _assign_pruning(state: SweepState, worker: WorkerState, due: list[PatchWork], now: float) -> Assign:
    """The most urgent patch, and with it others that share its passes, as long as every free pruner gets a task."""
    making = _patches_in_making(state)
    due.sort(key=lambda patch: _urgency(state, patch, making))
    free = len(state.fleet.of(Role.PRUNE, Phase.STARTING, Phase.IDLE))
    passes = {one.patch_id: () if one.alone else tuple((one.model, name) for name in one.passes) for one in due}
    tasks = share_out(passes, free, state.policy.largest_pruning)
    chosen = next(names for names in tasks if due[0].patch_id in names)
    together = [patch for patch in due if patch.patch_id in chosen]
    task = PruneTask(state.new_name("pruning"), due[0].model, tuple(patch.request for patch in together))
    for patch in together:
        state.set_patch_state(patch, PatchState.MAKING, task.task_id)
    return assign(state, worker, task, now)


def _patches_in_making(state: SweepState) -> Counter[Shape]:
    """How many patches of each shape are being made."""
    return Counter(state.shape_of(name) for name in state.unmade if state.patches[name].state is PatchState.MAKING)


def _urgency(state: SweepState, patch: PatchWork, making: Counter[Shape]) -> tuple[float, bool, int]:
    """Lowest first: patches of the shape whose engines have the fewest runnable patches each; then in grid order.

    A patch whose shape has no engine comes first where there may be an engine for every shape, else last.
    """
    work = state.by_patch[patch.patch_id][0]
    shape = work.context.shape
    engines = state.fleet.shapes.get(shape, 0)
    if not engines:
        return (0.0 if len(state.runnable) <= state.policy.engines else math.inf, True, work.order)
    return ((len(state.runnable[shape]) + making[shape]) / engines, False, work.order)


def assign_shards(state: SweepState, now: float) -> Iterator[Command]:
    """Feed hungry engines, and find idle ones a variant."""
    for shape in [shape for shape, patches in state.runnable.items() if patches]:
        for patch_id in [name for name in state.runnable[shape] if state.hungry_engines.get(name)]:
            for engine in list(state.hungry_engines[patch_id].values()):
                work = next((work for work in state.by_patch[patch_id] if work.fresh), None)
                if work is None:
                    break
                if (laggard := _laggard(state, shape, patch_id)) is not None:
                    switch(state, engine, laggard.patch_id)
                else:
                    yield _assign_fresh(state, engine, work, now)
        if not state.scaled:
            yield from _assign_idle(state, shape, now)


def _laggard(state: SweepState, shape: Shape, patch_id: str) -> Demand | None:
    """The variant that one of a patch's engines should switch to once it has finished its shards."""
    if state.fleet.engines_of[patch_id] < 2:
        return None  # `help_laggard` would find none, either; this spares computing the demands
    return help_laggard(
        _demand(state, shape, patch_id), (_demand(state, shape, name) for name in state.runnable[shape])
    )


def _assign_idle(state: SweepState, shape: Shape, now: float) -> Iterator[Command]:
    """Give the idle engines of a shape work: first those that hold a runnable variant, then the longest idle."""
    idle = [worker for worker in state.fleet.idle(Role.ENGINE) if worker.shape == shape]
    if not idle:
        return
    demands = {patch_id: _demand(state, shape, patch_id) for patch_id in state.runnable[shape]}
    for engine in sorted(idle, key=lambda engine: (engine.patch_id not in demands, engine.since)):
        most = _engines_per_variant(state, shape, engine, now)
        demand = choose_variant(IdleEngine(shape, engine.patch_id, most), demands.values())
        if demand is None:
            return  # and there is none for engines that became idle later
        if engine.patch_id != demand.patch_id:
            switch(state, engine, demand.patch_id)
        works = state.by_patch[demand.patch_id]
        work = next((work for work in works if work.fresh), None)
        if state.patches[demand.patch_id].suspected:
            yield _assign_probe(state, engine, work or next(work for work in works if work.retries), now)
        elif work is not None:
            yield _assign_fresh(state, engine, work, now)
        else:
            yield _assign_retry(state, engine, next(work for work in works if work.retries), now)
        if demand.patch_id in state.runnable[shape]:
            demands[demand.patch_id] = _demand(state, shape, demand.patch_id)
        else:
            del demands[demand.patch_id]


def _engines_per_variant(state: SweepState, shape: Shape, engine: WorkerState, now: float) -> float:
    """With how many engines on it a variant takes no more: while patches are still to be made, a fair share of them,
    until the engine has been idle for a while."""
    if not state.upcoming(shape) or now - engine.since > state.policy.patch_patience:
        return math.inf
    return max(1, _fair_share(state, shape))


def _fair_share(state: SweepState, shape: Shape) -> int:
    """Engines of a shape for each of its variants that draws wait for, in the store or still to be made."""
    variants = {*state.runnable[shape], *state.upcoming(shape)}
    loaded = state.fleet.engines_of.items()
    elsewhere = sum(n for name, n in loaded if name not in variants and state.shape_of(name) == shape)
    return (state.fleet.shapes.get(shape, 0) - elsewhere) // max(1, len(variants))


def _assign_fresh(state: SweepState, engine: WorkerState, work: ContextWork, now: float) -> Assign:
    """The next shard. Engines that are still to come to the variant count, too, or the first would take what is theirs:
    1.29 -> 1.00 of the bound at 1,000 engines, nothing up to 128."""
    policy, patch_id = state.policy, work.context.patch_id
    engines = max(state.fleet.engines_of[patch_id], _fair_share(state, work.context.shape))
    length = shard_length(len(work.fresh), engines, policy.smallest_shard, policy.largest_shard)
    return _assign_shard(state, engine, work, RetryGroup(work.take_fresh(length), 0), now)


def _assign_retry(state: SweepState, engine: WorkerState, work: ContextWork, now: float) -> Assign:
    """A group that was lost runs alone, so that no other draw is lost with it."""
    return _assign_shard(state, engine, work, work.retries.popleft(), now)


def _assign_probe(state: SweepState, engine: WorkerState, work: ContextWork, now: float) -> Assign:
    """One draw alone shows whether a suspected variant gives NaN for every draw."""
    return _assign_shard(state, engine, work, work.take_probe(), now)


def _assign_shard(state: SweepState, engine: WorkerState, work: ContextWork, group: RetryGroup, now: float) -> Assign:
    shard = ShardNumbers(state.new_name("shard"), work.context.context_id, group.numbers)
    state.begin_shard(work, shard.task_id, group.numbers, group.losses)
    return assign(state, engine, shard, now)


def _demand(state: SweepState, shape: Shape, patch_id: str) -> Demand:
    works = state.by_patch[patch_id]
    return Demand(
        patch_id,
        shape,
        state.waiting_tokens(patch_id),
        sum(work.waiting_draws for work in works),
        state.in_flight_tokens.get(patch_id, 0.0),
        state.fleet.engines_of.get(patch_id, 0),
        works[0].order,
    )


def assign_grading(state: SweepState, now: float) -> Iterator[Command]:
    """Give idle graders contexts, those with no running shard first: the others would have to be graded again."""
    if not state.gradable:
        return
    for worker in state.fleet.idle(Role.GRADE):
        works = [state.contexts[name] for name in state.gradable]
        if not works:
            return
        work = min(works, key=lambda work: (bool(work.running), work.order))
        task = GradeTask.of(state.new_name("grade"), work.context, work.golds)
        work.ungraded, work.grading = False, task.task_id
        state.work_of[task.task_id] = work
        state.reindex(work)
        yield assign(state, worker, task, now)
