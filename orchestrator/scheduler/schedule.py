"""What to do next, given the core's state: watch the workers, hand out work, start and retire workers, end.

Every question asked on every event is answered by an index of the state; those about who should be started are asked
only when something happened that could change the answer.
"""

from collections.abc import Iterator

from orchestrator.scheduler.assignment import assign_grading, assign_patches, assign_slices
from orchestrator.scheduler.events import Command, Finish, Kill, Role
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.scaling import retire, start_engines, start_grader, start_pruners
from orchestrator.scheduler.state import SweepState
from orchestrator.scheduler.work import PatchState
from workers.failure import Failure, FailureKind

WATCH_SECONDS = 1.0
BLIND_SECONDS = 60.0
"""A driver that did not look for so long (a suspended laptop, a store that held it up) cannot tell who was silent."""

STOP_SECONDS = 20.0
"""Once the sweep is to stop, so long for every worker to hand in, and for the store to tell what it holds."""


def next_commands(state: SweepState, now: float) -> Iterator[Command]:
    """Commands for the moment, each noted in `state` as it is given."""
    if now - state.watched >= WATCH_SECONDS:
        if 0 < state.watched < now - BLIND_SECONDS:
            _forgive_silence(state, now - state.watched)
        state.watched, state.staffed = now, False
        yield from _kill_unresponsive(state, now)
    if state.stopping is None:
        yield from assign_patches(state, now)
        yield from assign_slices(state, now)
        yield from assign_grading(state, now)
        if not state.staffed:
            state.staffed = True
            yield from start_pruners(state, now)
            yield from start_engines(state, now)
            if state.unsettled and _end_reason(state) is None:
                yield from start_grader(state, now)
    yield from _shut_down(state, now)


def _forgive_silence(state: SweepState, seconds: float) -> None:
    """Take a time out of everybody's silence: their reports may lie unread."""
    for known in state.fleet:
        known.since += seconds
        known.progressed += seconds


def _kill_unresponsive(state: SweepState, now: float) -> Iterator[Command]:
    """Discard workers that do not come up, have fallen silent at work, or talk and get nowhere."""
    for known in state.fleet:
        patience = _patience(state, known)
        if patience is not None and now - known.since > patience:
            known.since = now
            yield Kill(
                known.worker,
                Failure(FailureKind.HANG, f"{known.worker} was {known.phase} and silent for {patience:.0f} s"),
            )
        elif _engaged(known) and now - known.progressed > state.policy.stall_seconds:
            known.progressed = now
            cause = f"{known.worker} is alive and has generated nothing for {state.policy.stall_seconds:.0f} s"
            yield Kill(known.worker, Failure(FailureKind.HANG, cause))


def _patience(state: SweepState, known: WorkerState) -> float | None:
    if known.phase is Phase.IDLE:
        return None
    if known.phase is Phase.STARTING:
        return state.policy.start_seconds
    patience = state.policy.prune_seconds if known.role is Role.PRUNE else state.policy.silence_seconds
    return patience if state.stopping is None else min(patience, STOP_SECONDS)


def _engaged(known: WorkerState) -> bool:
    return known.role is Role.ENGINE and known.phase is Phase.BUSY


def _shut_down(state: SweepState, now: float) -> Iterator[Command]:
    reason = _end_reason(state)
    if reason is None:
        return
    for known in state.fleet:
        if known.phase is Phase.STARTING or (known.role is Role.PRUNE and known.phase is Phase.BUSY):
            # It has nothing to hand in, and may not be ready for long: a patch is whole or not there.
            state.fleet.set_phase(known, Phase.CLOSING)
            yield Kill(known.worker, Failure(FailureKind.RETIRED, "the sweep ended before it was ready"))
        elif known.phase is not Phase.CLOSING:
            yield retire(state, known, now)
    told = not state.pending_checks or (state.stopping is not None and now - state.stopped > STOP_SECONDS)
    if not len(state.fleet) and told:
        yield Finish(reason)


def _end_reason(state: SweepState) -> str | None:
    if state.stopping is not None:
        return state.stopping
    if state.pending_checks or state.fleet.any(Phase.BUSY):
        return None
    if not state.unsettled:
        return "done"
    if state.fleet.any(Phase.STARTING):
        return None
    dead = [role for role in Role if state.dead(role)]
    if not dead:
        return None
    able = (
        (not state.dead(Role.PRUNE) and any(state.patches[name].state is PatchState.OWED for name in state.coming))
        or (not state.dead(Role.ENGINE) and any(state.ready.values()))
        or (not state.dead(Role.GRADE) and bool(state.ungraded))
    )
    return None if able else f"no {' and no '.join(dead)} worker comes up"
