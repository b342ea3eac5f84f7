"""What to do next, given the core's state: watch the workers, hand out work, start and retire workers, end.

Every question asked on every event is answered by an index of the state; those about who should be started are asked
only when something happened that could change the answer.
"""

from collections.abc import Iterator

from orchestrator.scheduler.assignment import assign_grading, assign_patches, assign_slices
from orchestrator.scheduler.events import Command, Discard, Finish, Role
from orchestrator.scheduler.fleet import Life, WorkerState
from orchestrator.scheduler.scaling import retire, start_engines, start_grader, start_pruners
from orchestrator.scheduler.state import State
from orchestrator.scheduler.work import ContextWork, Patched
from workers.failure import Failure

WATCH_SECONDS = 1.0
BLIND_SECONDS = 60.0
"""A driver that did not look for so long (a suspended laptop, a store that held it up) cannot tell who was silent."""

STOP_SECONDS = 20.0
"""Once the sweep is to stop, so long for every worker to hand in, and for the store to tell what it holds."""


def next_orders(state: State, now: float, tasks: dict[str, ContextWork]) -> Iterator[Command]:
    """Commands for the moment, each noted in `state` as it is given. `tasks` learns what slices and gradings serve."""
    if now - state.watched >= WATCH_SECONDS:
        if 0 < state.watched < now - BLIND_SECONDS:
            _excuse(state, now - state.watched)
        state.watched, state.staffed = now, False
        yield from _watch(state, now)
    if state.stopping is None:
        yield from assign_patches(state, now)
        yield from assign_slices(state, now, tasks)
        yield from assign_grading(state, now, tasks)
        if not state.staffed:
            state.staffed = True
            yield from start_pruners(state, now)
            yield from start_engines(state, now)
            if state.unsettled and _reason_to_end(state) is None:
                yield from start_grader(state, now)
    yield from _wind_up(state, now)


def _excuse(state: State, seconds: float) -> None:
    """Take a time out of everybody's silence: their reports may lie unread."""
    for known in state.fleet:
        known.since += seconds
        known.progressed += seconds


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
    patience = state.policy.prune_seconds if known.role is Role.PRUNE else state.policy.silence_seconds
    return patience if state.stopping is None else min(patience, STOP_SECONDS)


def _engaged(known: WorkerState) -> bool:
    return known.role is Role.ENGINE and known.life is Life.BUSY


def _wind_up(state: State, now: float) -> Iterator[Command]:
    reason = _reason_to_end(state)
    if reason is None:
        return
    for known in state.fleet:
        if known.life is Life.STARTING or (known.role is Role.PRUNE and known.life is Life.BUSY):
            # It has nothing to hand in, and may not be ready for long: a patch is whole or not there.
            state.fleet.become(known, Life.CLOSING)
            yield Discard(known.worker, Failure("retired", "the sweep ended before it was ready"))
        elif known.life is not Life.CLOSING:
            yield retire(state, known, now)
    told = not state.recounting or (state.stopping is not None and now - state.stopped > STOP_SECONDS)
    if not len(state.fleet) and told:
        yield Finish(reason)


def _reason_to_end(state: State) -> str | None:
    if state.stopping is not None:
        return state.stopping
    if state.recounting or state.fleet.any(Life.BUSY):
        return None
    if not state.unsettled:
        return "done"
    if state.fleet.any(Life.STARTING):
        return None
    dead = [role for role in Role if state.dead(role)]
    if not dead:
        return None
    able = (
        (not state.dead(Role.PRUNE) and any(state.patches[name].state is Patched.OWED for name in state.coming))
        or (not state.dead(Role.ENGINE) and any(state.ready.values()))
        or (not state.dead(Role.GRADE) and bool(state.ungraded))
    )
    return None if able else f"no {' and no '.join(dead)} worker comes up"
