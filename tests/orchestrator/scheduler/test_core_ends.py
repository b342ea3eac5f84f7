"""How workers and sweeps end for the core: silence, starts that fail, notices, stops."""

from dataclasses import replace

import pytest

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Finish,
    Kill,
    NodeDraining,
    RecordFailures,
    Reported,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
    StopRequested,
    Tick,
    WorkerLost,
)
from orchestrator.scheduler.work import PatchState
from tests.support.builders import (
    Hand,
    committed,
    make_context,
    make_core,
    make_patch,
    make_work,
    of_kind,
    ready,
    started,
)
from tests.support.core_steps import LOST, POLICY, missing, shard_of, start_engine
from workers.failure import Failure, FailureKind
from workers.messages import GradeTask, PatchMade, TaskEnded, WantsMore


def test_silent_engine_is_discarded_after_its_silence_and_not_before() -> None:
    hand, worker, _ = start_engine(make_core(4, replace(POLICY, silence_seconds=60.0)))
    assert not of_kind(hand(Tick(), after=59.0), Kill)
    (discard,) = of_kind(hand(Tick(), after=2.0), Kill)
    assert (discard.worker, discard.failure.kind) == (worker, "hang")
    assert "60 s" in discard.failure.cause


def test_engine_that_reports_is_not_discarded() -> None:
    hand, worker, shard = start_engine(make_core(4, replace(POLICY, silence_seconds=60.0)))
    hand(Reported(worker, committed(shard, shard.numbers[:1])), after=50.0)
    assert not of_kind(hand(Tick(), after=50.0), Kill)


def test_pruner_may_be_silent_for_longer_than_an_engine() -> None:
    policy = replace(POLICY, silence_seconds=60.0, prune_seconds=600.0, start_seconds=900.0)
    hand = Hand(make_core(4, policy, PatchState.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    hand(ready(pruner))
    for _ in range(10):
        assert not of_kind(hand(Tick(), after=50.0), Kill)
    hand(Tick(), after=50.0)
    assert pruner in {discard.worker for discard in of_kind(hand(Tick(), after=51.0), Kill)}


def test_pruner_may_be_silent_for_as_long_as_the_patches_that_it_has_not_made_may_take() -> None:
    policy = replace(POLICY, prune_seconds=100.0)
    works = [make_work(make_context(f"c{n}", f"p{n}"), 2, n) for n in range(3)]
    patches = [make_patch(f"p{n}", PatchState.OWED, passes=("activations",)) for n in range(3)]
    hand = Hand(Core(policy, patches, works))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (given,) = of_kind(hand(ready(pruner)), Assign)
    for _ in range(6):
        assert not of_kind(hand(Tick(), after=49.0), Kill)
    hand(Reported(pruner, PatchMade(given.task.task_id, "p0", 0.5, 1.0)))
    for _ in range(4):
        assert not of_kind(hand(Tick(), after=49.0), Kill)
    assert pruner in {kill.worker for kill in of_kind(hand(Tick(), after=5.0), Kill)}


def test_driver_that_did_not_look_for_long_takes_nobody_for_hung() -> None:
    hand, worker, _ = start_engine(make_core(4, replace(POLICY, silence_seconds=100.0)))
    hand(Tick(), after=50.0)
    assert not of_kind(hand(Tick(), after=3600.0), Kill), "its reports may lie unread"
    assert not of_kind(hand(Tick(), after=45.0), Kill)
    (discard,) = of_kind(hand(Tick(), after=10.0), Kill)
    assert discard.worker == worker


@pytest.mark.parametrize("role", [Role.ENGINE, Role.GRADE, Role.PRUNE])
def test_three_failed_starts_of_a_role_end_the_sweep_with_a_reason(role: Role) -> None:
    state = PatchState.OWED if role is Role.PRUNE else PatchState.STORED
    hand = Hand(make_core(4, replace(POLICY, failed_starts=3), state))
    todo = hand(Tick())
    starts = 0
    for _ in range(100):
        events = []
        for command in todo:
            match command:
                case StartWorker(worker, started_role):
                    starts += started_role is role
                    failed = WorkerLost(worker, Failure(FailureKind.WORKER_ERROR, "no such model"))
                    events.append(failed if started_role is role else ready(worker))
                case Assign(worker, ShardNumbers() as shard):
                    events += [
                        Reported(worker, committed(shard, shard.numbers)),
                        Reported(worker, TaskEnded(shard.task_id)),
                    ]
                case Retire(worker):
                    events.append(WorkerLost(worker, Failure(FailureKind.RETIRED, "")))
        todo = [command for event in events or [Tick()] for command in hand(event, after=1.0)]
        if hand.core.finished is not None:
            break
    assert hand.core.finished == f"no {role} worker comes up"
    assert starts == 3
    assert hand.failures() == {}  # nothing is wrong with the draws: they stay owed


def test_start_that_succeeds_forgives_the_failed_ones() -> None:
    hand = Hand(make_core(4, replace(POLICY, failed_starts=2)))
    (engine,) = started(hand(Tick()), Role.ENGINE)
    (engine,) = started(hand(WorkerLost(engine, LOST)), Role.ENGINE)
    _, shard = shard_of(hand(ready(engine)))
    hand(WorkerLost(engine, LOST))
    (engine,) = started(hand(missing(shard, shard.numbers)), Role.ENGINE)
    assert started(hand(WorkerLost(engine, LOST)), Role.ENGINE)


def test_stop_leaves_draws_owed_and_records_no_failure() -> None:
    hand, worker, shard = start_engine(make_core(40, POLICY))
    commands = hand(StopRequested("stopped by SIGTERM"))
    assert worker in {retire.worker for retire in of_kind(commands, Retire)}
    hand(Reported(worker, committed(shard, shard.numbers[:3])))
    hand(Reported(worker, TaskEnded(shard.task_id)))
    hand(missing(shard, shard.numbers[3:]))
    for name in [worker.name for worker in hand.core.state.fleet]:
        commands = hand(WorkerLost(name, Failure(FailureKind.RETIRED, "closed as asked")))
    assert commands == [Finish("stopped by SIGTERM")]
    assert hand.core.state.counters.committed == 3
    assert hand.core.state.contexts["c"].waiting_draws == 37
    assert not of_kind(hand.said, RecordFailures)
    assert hand.core.state.counters.workers_lost == 0


def test_stop_waits_for_the_store_to_tell_what_was_committed() -> None:
    hand, worker, shard = start_engine(make_core(8, POLICY))
    hand(StopRequested("stopped by SIGTERM"))
    for other in list(hand.core.state.fleet):
        if other.name != worker:
            hand(WorkerLost(other.name, Failure(FailureKind.RETIRED, "closed as asked")))
    assert not of_kind(hand(WorkerLost(worker, LOST)), Finish)
    assert of_kind(hand(missing(shard, shard.numbers[5:])), Finish)
    assert hand.core.state.counters.committed == 5


def test_worker_that_is_not_up_when_nothing_is_owed_any_more_holds_up_nobody() -> None:
    hand = Hand(make_core(17, replace(POLICY, engines=2)))
    one, other = started(hand(Tick()), Role.ENGINE)
    (grader,) = started(hand.said, Role.GRADE)
    hand(ready(grader))
    _, shard = shard_of(hand(ready(one)))
    (graded,) = of_kind(hand(Reported(one, committed(shard, shard.numbers))), Assign)
    _, last = shard_of(hand(Reported(one, TaskEnded(shard.task_id))))
    hand(Reported(one, committed(last, last.numbers)))
    hand(Reported(one, TaskEnded(last.task_id)))
    (again,) = of_kind(hand(Reported(grader, TaskEnded(graded.task.task_id))), Assign)
    hand(Reported(grader, TaskEnded(again.task.task_id)))
    assert [c.worker for c in of_kind(hand.said, Kill)] == [other]
    for worker in (one, other, grader):
        todo = hand(WorkerLost(worker, Failure(FailureKind.RETIRED, "")))
    assert todo == [Finish("done")]
    assert not hand.core.state.counters.workers_lost


def test_stop_kills_a_pruner_at_once_and_waits_for_a_silent_store_no_longer_than_for_a_worker() -> None:
    hand = Hand(make_core(4, POLICY, PatchState.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    hand(ready(pruner))
    assert pruner in {discard.worker for discard in of_kind(hand(StopRequested("stopped by SIGTERM")), Kill)}
    hand, worker, _ = start_engine(make_core(4, POLICY))
    hand(WorkerLost(worker, LOST))
    hand(StopRequested("stopped by SIGTERM"))
    for worker in list(hand.core.state.fleet):
        hand(WorkerLost(worker.name, Failure(FailureKind.RETIRED, "")))
    assert not of_kind(hand(Tick(), after=20.0), Finish)
    assert of_kind(hand(Tick(), after=1.0), Finish)


def test_grader_that_leaves_has_not_finished() -> None:
    hand, worker, shard = start_engine(make_core(4, POLICY))
    (grader,) = started(hand.said, Role.GRADE)
    hand(ready(grader))
    (given,) = of_kind(hand(Reported(worker, committed(shard, shard.numbers))), Assign)
    hand(Reported(worker, TaskEnded(shard.task_id)))
    hand(NodeDraining((grader,), "spot notice"))
    hand(Reported(grader, TaskEnded(given.task.task_id)))
    (second,) = started(hand(WorkerLost(grader, Failure(FailureKind.RETIRED, ""))), Role.GRADE)
    (again,) = of_kind(hand(ready(second)), Assign)
    assert isinstance(again.task, GradeTask)


def test_engine_at_work_keeps_its_role_alive_whatever_fails_to_start_beside_it() -> None:
    hand = Hand(make_core(80, replace(POLICY, engines=3, slots=3, failed_starts=1)))
    one, *others = started(hand(Tick()), Role.ENGINE)
    _, shard = shard_of(hand(ready(one)))
    for worker in others:
        hand(WorkerLost(worker, Failure(FailureKind.HANG, "no device for it")), after=1.0)
    assert not of_kind(hand(Tick(), after=30.0), StartWorker), "and no further one is tried"
    hand(Reported(one, committed(shard, shard.numbers)))
    _, more = shard_of(hand(Reported(one, TaskEnded(shard.task_id))))
    assert more.numbers
    assert hand.core.finished is None


def test_hungry_engine_that_leaves_is_fed_no_more() -> None:
    hand = Hand(make_core(66, replace(POLICY, engines=2, smallest_shard=33, largest_shard=33)))
    one, other = started(hand(Tick()), Role.ENGINE)
    _, first = shard_of(hand(ready(one)))
    _, second = shard_of(hand(ready(other)))
    hand(Reported(one, WantsMore(first.task_id)))
    hand(NodeDraining((one, other), "spot notice"))
    hand(WorkerLost(other, Failure(FailureKind.RETIRED, "closed as asked")))
    assert not of_kind(hand(missing(second, second.numbers)), Assign)


def test_stop_with_a_worker_that_never_closes_still_ends() -> None:
    hand, worker, shard = start_engine(make_core(4, replace(POLICY, silence_seconds=60.0)))
    hand(StopRequested("stopped by SIGINT"))
    assert not of_kind(hand(Tick(), after=20.0), Kill)
    discards = of_kind(hand(Tick(), after=1.0), Kill)
    assert worker in {discard.worker for discard in discards}, "after 20 s, not 60"
    for discard in discards:
        hand(WorkerLost(discard.worker, discard.failure))
    hand(missing(shard, shard.numbers))
    assert hand.core.finished == "stopped by SIGINT"
