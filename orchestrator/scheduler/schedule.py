"""What to do next, given the core's state: watch the workers, assign work, start and retire workers, end.

What is asked on every event is answered by an index of the state. How many workers there should be is decided only when
something happened that could change the answer.
"""

from collections.abc import Iterator

from orchestrator.scheduler import nodes, transitions
from orchestrator.scheduler.assignment import assign_grading, assign_patches, assign_shards
from orchestrator.scheduler.events import Command, Finish, Role
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.scaling import start_engines, start_grader, start_pruners
from orchestrator.scheduler.state import SweepState
from orchestrator.scheduler.work import PatchState
from workers.messages import PruneTask

CHECK_SECONDS = 1.0
"""Workers are checked for silence this often."""

BLIND_SECONDS = 60.0
"""A driver that has not looked for this long (a suspended laptop, a store that held it up) cannot tell who was silent,
because reports may lie unread."""

STOP_SECONDS = 20.0
"""When the sweep is to stop, how long each worker may take to commit what it has, and the store to answer checks."""


def next_commands(state: SweepState, now: float) -> Iterator[Command]:
    """Commands for the moment; each is noted in `state` as it is given."""
    if now - state.checked_at >= CHECK_SECONDS:
        if 0 < state.checked_at < now - BLIND_SECONDS:
            for worker in state.fleet:
                transitions.forgive(worker, now - state.checked_at)
        state.checked_at, state.scaled = now, False
        yield from _kill_unresponsive(state, now)
    if state.stopping is None:
        yield from assign_patches(state, now)
        yield from assign_shards(state, now)
        yield from assign_grading(state, now)
        if not state.scaled:
            state.scaled = True
            yield from start_pruners(state, now)
            yield from start_engines(state, now)
            if state.unfinished and _end_reason(state) is None:
                yield from start_grader(state, now)
    yield from _shut_down(state, now)


def _kill_unresponsive(state: SweepState, now: float) -> Iterator[Command]:
    """Kill workers that do not start, that fall silent, and engines that report but generate nothing."""
    for worker in state.fleet:
        patience, stall = _patience(state, worker), state.policy.stall_seconds
        if patience is not None and now - worker.since > patience:
            yield transitions.kill(worker, f"{worker.name} was {worker.phase} and silent for {patience:.0f} s", now)
        elif worker.role is Role.ENGINE and worker.phase is Phase.BUSY and now - worker.progressed > stall:
            yield transitions.kill(worker, f"{worker.name} is alive and has generated nothing for {stall:.0f} s", now)


def _patience(state: SweepState, worker: WorkerState) -> float | None:
    """How long a worker may be silent; None for an idle one, which has nothing to say."""
    if worker.phase is Phase.IDLE:
        return None
    if worker.phase is Phase.STARTING:
        return state.policy.start_seconds
    patience = state.policy.silence_seconds
    if worker.role is Role.PRUNE:
        left = [
            patch for task in worker.tasks.values() if isinstance(task, PruneTask) for patch in state.patches_left(task)
        ]
        patience = state.policy.prune_seconds * max(1, len(left))
    return patience if state.stopping is None else min(patience, STOP_SECONDS)


def _shut_down(state: SweepState, now: float) -> Iterator[Command]:
    """Once there is a reason to end, close all workers; when they and all pending checks are gone, finish."""
    reason = _end_reason(state)
    if reason is None:
        return
    for worker in state.fleet:
        if worker.phase is Phase.STARTING or (worker.role is Role.PRUNE and worker.phase is Phase.BUSY):
            # It has nothing to commit (a patch is whole or not there) and might not close for long.
            yield transitions.dismiss(state, worker, now)
        elif worker.phase is not Phase.CLOSING:
            yield transitions.retire(state, worker, now)
    out_of_time = state.stopping is not None and now - state.stopped_at > STOP_SECONDS
    if not len(state.fleet) and (not state.pending_checks or out_of_time):
        yield Finish(reason)


def _end_reason(state: SweepState) -> str | None:
    """Why the sweep ends: everything is done, a stop was requested, or no worker that could go on can be started, for
    any machine or for those that are left."""
    if state.stopping is not None:
        return state.stopping
    if state.pending_checks or state.fleet.any(Phase.BUSY):
        return None
    if not state.unfinished:
        return "done"
    if state.fleet.any(Phase.STARTING):
        return None
    dead = [role for role in Role if state.dead(role)]
    if not dead and not state.stranded:
        return None
    can_go_on = (
        (not state.dead(Role.PRUNE) and any(state.patches[name].state is PatchState.OWED for name in state.unmade))
        or (not state.dead(Role.ENGINE) and any(state.runnable.values()))
        or (not state.dead(Role.GRADE) and bool(state.gradable))
    )
    if can_go_on:
        return None
    reasons = [f"no {' and no '.join(dead)} worker comes up"] if dead else []
    reasons += nodes.why_stranded(state)
    return "; ".join(reasons)
