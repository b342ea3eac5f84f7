"""What the core does in the cases that matter most, one by one."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.core import Core
from orchestrator.events import (
    Assign,
    Discard,
    Finish,
    RecordFailures,
    Recount,
    Recounted,
    Reported,
    Retire,
    Role,
    StartWorker,
    StopAsked,
    TaskEnded,
    TaskFailed,
    Tick,
    WorkerLost,
)
from orchestrator.work import Patched, Policy, key
from tests.orchestrator.builders import (
    SHORTENED,
    Hand,
    committed,
    make_context,
    make_core,
    make_items,
    make_patch,
    make_work,
    of_kind,
    ready,
    started,
)
from workers.messages import Failure, Graded, GradeTask, Item, PatchMade, PruneTask, Rejected, Shard

LOST = Failure("engine-lost", "the engine died")
POLICY = Policy(engines=1, slots=2, smallest_shard=16, largest_shard=16)


def shard_of(commands: list) -> tuple[str, Shard]:
    """The one shard that `commands` hand out, and to whom."""
    (given,) = [c for c in of_kind(commands, Assign) if isinstance(c.task, Shard)]
    return given.worker, given.task


def missing(shard: Shard, items: tuple[Item, ...] | list[Item]) -> Recounted:
    return Recounted(shard.task_id, frozenset(key(shard.context, item) for item in items))


def serve(hand: Hand, until: Callable[[], bool], crash_on: set[str] = frozenset()) -> None:
    """Be a fleet that does everything well, except that an engine given a prompt of `crash_on` dies uncommitted."""
    todo = hand(Tick())
    for _ in range(500):
        if until():
            return
        events = []
        for command in todo:
            match command:
                case StartWorker(worker):
                    events.append(ready(worker))
                case Assign(worker, Shard() as shard) if crash_on & {item.prompt_id for item in shard.items}:
                    events.append(WorkerLost(worker, LOST))
                case Assign(worker, Shard() as shard):
                    events += [
                        Reported(worker, committed(shard, shard.items)),
                        TaskEnded(worker, shard.task_id),
                    ]
                case Assign(worker, PruneTask() as task):
                    events.append(Reported(worker, PatchMade(task.task_id, task.patch_id, 0.5, 1.0)))
                    events.append(TaskEnded(worker, task.task_id))
                case Assign(worker, GradeTask() as task):
                    events.append(Reported(worker, Graded(task.task_id, task.context_id, 1)))
                    events.append(TaskEnded(worker, task.task_id))
                case Recount(shard):
                    events.append(missing(shard, shard.items))
                case Retire(worker):
                    events.append(WorkerLost(worker, Failure("retired", "closed as asked")))
        todo = [command for event in events or [Tick()] for command in hand(event, after=1.0)]
    raise AssertionError("it does not come to an end")


def test_sweep_undisturbed_commits_everything_and_finishes() -> None:
    hand = Hand(make_core(make_items(40), POLICY, Patched.OWED))
    serve(hand, lambda: hand.core.finished is not None)
    assert hand.core.finished == "done"
    assert hand.core.state.tally.committed == 40
    assert hand.failures() == []
    assert not hand.core.state.workers


def test_poison_draw_is_isolated_and_only_it_is_recorded_as_failed() -> None:
    hand = Hand(make_core(make_items(16), POLICY))
    serve(hand, lambda: hand.core.finished is not None, crash_on={"p5"})
    assert hand.core.finished == "done"
    assert hand.core.state.tally.committed == 15
    (row,) = hand.failures()
    assert (row.prompt_id, row.kind, row.cause) == ("p5", "engine-lost", "the engine died")
    # 16, 8, 4, 2, 1: four halvings, and then it is alone, having been lost more often than the policy asks already.
    assert row.attempts == 5


def test_lone_draw_lost_is_tried_as_often_as_the_policy_says() -> None:
    hand = Hand(make_core(make_items(1), replace(POLICY, attempts=3)))
    serve(hand, lambda: hand.core.finished is not None, crash_on={"p0"})
    assert [row.attempts for row in hand.failures()] == [3]
    assert sum(isinstance(c, Assign) and isinstance(c.task, Shard) for c in hand.said) == 3


def start_engine(core: Core, commands: list | None = None) -> tuple[Hand, str, Shard]:
    hand = Hand(core)
    (engine,) = started(hand(Tick()), Role.ENGINE)
    worker, shard = shard_of(hand(ready(engine)))
    assert worker == engine
    return hand, worker, shard


def test_lost_engine_makes_only_what_the_store_lacks_again() -> None:
    hand, worker, shard = start_engine(make_core(make_items(8), POLICY))
    hand(Reported(worker, committed(shard, shard.items[:2])))
    (recount,) = of_kind(hand(WorkerLost(worker, LOST)), Recount)
    assert len(recount.shard.items) == 6
    # Three more had been committed when it died, which nobody heard.
    (engine,) = started(hand(missing(shard, shard.items[5:])), Role.ENGINE)
    assert hand.core.state.tally.committed == 5
    _, again = shard_of(hand(ready(engine)))
    assert set(again.items) < set(shard.items[5:])


def test_shard_ended_without_a_report_is_recounted_before_anything_is_made_again() -> None:
    hand, worker, shard = start_engine(make_core(make_items(4), POLICY))
    commands = hand(TaskEnded(worker, shard.task_id))
    assert of_kind(commands, Recount)
    assert not of_kind(commands, Assign)
    hand(missing(shard, []))
    assert hand.core.state.tally.committed == 4


def test_task_end_that_comes_twice_does_not_give_a_busy_worker_a_second_task() -> None:
    hand, worker, shard = start_engine(make_core(make_items(40), POLICY))
    hand(Reported(worker, committed(shard, shard.items)))
    _, second = shard_of(hand(TaskEnded(worker, shard.task_id)))
    assert not of_kind(hand(TaskEnded(worker, shard.task_id)), Assign)
    assert hand.core.state.workers[worker].task == second


def test_patch_without_its_report_is_made_again() -> None:
    hand = Hand(make_core(make_items(4), POLICY, Patched.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (first,) = of_kind(hand(ready(pruner)), Assign)
    hand(TaskEnded(pruner, first.task.task_id))
    (second,) = of_kind(hand(Tick(), after=POLICY.backoff_seconds), Assign)
    assert isinstance(second.task, PruneTask)
    hand(TaskFailed(pruner, first.task.task_id, Failure("prune", "said late")))
    assert hand.core.state.patches["patch"].state is Patched.MAKING


def test_patch_failure_backs_off_doubling_then_gives_up_its_draws_only() -> None:
    policy = replace(POLICY, attempts=3, backoff_seconds=5.0)
    works = [
        make_work(make_context("bad", "cursed"), make_items(3), 0),
        make_work(make_context("good", "patch"), make_items(3), 1),
    ]
    hand = Hand(Core(policy, [make_patch("cursed", Patched.OWED), make_patch("patch")], works))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    commands = hand(ready(pruner))
    for attempt, pause in enumerate([5.0, 10.0]):
        (given,) = of_kind(commands, Assign)
        hand(TaskFailed(pruner, given.task.task_id, Failure("prune", f"no memory {attempt}")))
        assert not of_kind(hand(Tick(), after=pause - 0.1), Assign)
        commands = hand(Tick(), after=0.1)
    (given,) = of_kind(commands, Assign)
    hand(TaskFailed(pruner, given.task.task_id, Failure("prune", "no memory 2")))
    assert {(row.context_id, row.kind, row.cause) for row in hand.failures()} == {("bad", "prune", "no memory 2")}
    assert len(hand.failures()) == 3
    assert hand.core.state.contexts["good"].draws == 3


def test_patch_of_bad_input_is_not_tried_again() -> None:
    hand = Hand(make_core(make_items(3), POLICY, Patched.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (given,) = of_kind(hand(ready(pruner)), Assign)
    hand(TaskFailed(pruner, given.task.task_id, Failure("bad-input", "no such layer")))
    assert [row.kind for row in hand.failures()] == ["bad-input"] * 3


def test_nan_variant_is_final_for_every_draw_of_it() -> None:
    hand, worker, shard = start_engine(make_core(make_items(40), POLICY))
    hand(TaskFailed(worker, shard.task_id, Failure("nan", "the canary is NaN")))
    commands = hand(missing(shard, shard.items))
    assert len(hand.failures()) == 40
    assert {row.attempts for row in hand.failures()} == {1}
    assert not of_kind(commands, Assign)


def test_rejected_draw_is_recorded_once_and_the_shard_goes_on() -> None:
    hand, worker, shard = start_engine(make_core(make_items(4), POLICY))
    report = Reported(worker, Rejected(shard.task_id, (key(shard.context, shard.items[0]),), Failure("bad-input", "x")))
    hand(report)
    hand(report)
    assert [row.prompt_id for row in hand.failures()] == ["p0"]
    hand(Reported(worker, committed(shard, shard.items[1:])))
    hand(TaskEnded(worker, shard.task_id))
    assert hand.core.state.tally.committed == 3
    assert not of_kind(hand.said, Recount)


def test_committed_report_that_comes_twice_counts_once() -> None:
    hand, worker, shard = start_engine(make_core(make_items(4), POLICY))
    hand(Reported(worker, committed(shard, shard.items[:3])))
    hand(Reported(worker, committed(shard, shard.items[:3])))
    assert hand.core.state.tally.committed == 3


def test_silent_engine_is_discarded_after_its_silence_and_not_before() -> None:
    hand, worker, _ = start_engine(make_core(make_items(4), replace(POLICY, silence_seconds=60.0)))
    assert not of_kind(hand(Tick(), after=59.0), Discard)
    (discard,) = of_kind(hand(Tick(), after=2.0), Discard)
    assert (discard.worker, discard.failure.kind) == (worker, "hang")
    assert "60 s" in discard.failure.cause


def test_engine_that_reports_is_not_discarded() -> None:
    hand, worker, shard = start_engine(make_core(make_items(4), replace(POLICY, silence_seconds=60.0)))
    hand(Reported(worker, committed(shard, shard.items[:1])), after=50.0)
    assert not of_kind(hand(Tick(), after=50.0), Discard)


def test_pruner_may_be_silent_for_longer_than_an_engine() -> None:
    policy = replace(POLICY, silence_seconds=60.0, prune_seconds=600.0, start_seconds=900.0)
    hand = Hand(make_core(make_items(4), policy, Patched.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    hand(ready(pruner))
    assert not of_kind(hand(Tick(), after=500.0), Discard)
    assert pruner in {discard.worker for discard in of_kind(hand(Tick(), after=101.0), Discard)}


@pytest.mark.parametrize("role", [Role.ENGINE, Role.GRADE, Role.PRUNE])
def test_three_failed_starts_of_a_role_end_the_sweep_with_a_reason(role: Role) -> None:
    state = Patched.OWED if role is Role.PRUNE else Patched.HELD
    hand = Hand(make_core(make_items(4), replace(POLICY, failed_starts=3), state))
    todo = hand(Tick())
    starts = 0
    for _ in range(100):
        events = []
        for command in todo:
            match command:
                case StartWorker(worker, started_role):
                    starts += started_role is role
                    failed = WorkerLost(worker, Failure("worker-error", "no such model"))
                    events.append(failed if started_role is role else ready(worker))
                case Assign(worker, Shard() as shard):
                    events += [
                        Reported(worker, committed(shard, shard.items)),
                        TaskEnded(worker, shard.task_id),
                    ]
                case Retire(worker):
                    events.append(WorkerLost(worker, Failure("retired", "")))
        todo = [command for event in events or [Tick()] for command in hand(event, after=1.0)]
        if hand.core.finished is not None:
            break
    assert hand.core.finished == f"no {role} worker comes up"
    assert starts == 3
    assert hand.failures() == []  # nothing is wrong with the draws: they stay owed


def test_start_that_succeeds_forgives_the_failed_ones() -> None:
    hand = Hand(make_core(make_items(4), replace(POLICY, failed_starts=2)))
    (engine,) = started(hand(Tick()), Role.ENGINE)
    (engine,) = started(hand(WorkerLost(engine, LOST)), Role.ENGINE)
    _, shard = shard_of(hand(ready(engine)))
    hand(WorkerLost(engine, LOST))
    (engine,) = started(hand(missing(shard, shard.items)), Role.ENGINE)
    assert started(hand(WorkerLost(engine, LOST)), Role.ENGINE)


def test_stop_leaves_draws_owed_and_records_no_failure() -> None:
    hand, worker, shard = start_engine(make_core(make_items(40), POLICY))
    commands = hand(StopAsked("stopped by SIGTERM"))
    assert worker in {retire.worker for retire in of_kind(commands, Retire)}
    hand(Reported(worker, committed(shard, shard.items[:3])))
    hand(TaskEnded(worker, shard.task_id))
    hand(missing(shard, shard.items[3:]))
    for name in list(hand.core.state.workers):
        commands = hand(WorkerLost(name, Failure("retired", "closed as asked")))
    assert commands == [Finish("stopped by SIGTERM")]
    assert hand.core.state.tally.committed == 3
    assert hand.core.state.contexts["c"].draws == 37
    assert not of_kind(hand.said, RecordFailures)
    assert hand.core.state.tally.workers_lost == 0


def test_stop_with_a_worker_that_never_closes_still_ends() -> None:
    hand, worker, shard = start_engine(make_core(make_items(4), replace(POLICY, silence_seconds=60.0)))
    hand(StopAsked("stopped by SIGINT"))
    discards = of_kind(hand(Tick(), after=61.0), Discard)
    assert worker in {discard.worker for discard in discards}
    for discard in discards:
        hand(WorkerLost(discard.worker, discard.failure))
    hand(missing(shard, shard.items))
    assert hand.core.finished == "stopped by SIGINT"


def test_grader_lost_again_and_again_is_given_up_without_a_draw_being_harmed() -> None:
    hand = Hand(make_core([], replace(POLICY, attempts=2)))
    hand.core.state.contexts["c"].ungraded = True
    (grader,) = started(hand(Tick()), Role.GRADE)
    (given,) = of_kind(hand(ready(grader)), Assign)
    (grader,) = started(hand(WorkerLost(grader, LOST)), Role.GRADE)
    (again,) = of_kind(hand(ready(grader)), Assign)
    assert again.task.task_id != given.task.task_id
    hand(TaskFailed(grader, again.task.task_id, Failure("store", "gone")))
    hand(WorkerLost(grader, Failure("retired", "")))
    assert hand.core.finished == "done"
    assert hand.failures() == []


def test_engine_changes_weights_once_for_two_variants_and_no_oftener() -> None:
    works = [make_work(make_context(f"c{n}", f"patch{n}"), make_items(40), n) for n in range(2)]
    policy = replace(POLICY, smallest_shard=4, largest_shard=4)
    hand = Hand(Core(policy, [make_patch("patch0"), make_patch("patch1")], works))
    serve(hand, lambda: hand.core.finished is not None)
    held = [c.task.context.patch_id for c in of_kind(hand.said, Assign) if isinstance(c.task, Shard)]
    assert held == ["patch0"] * 10 + ["patch1"] * 10


def test_engine_of_a_shape_without_work_makes_room_for_one_that_has_some() -> None:
    works = [
        make_work(make_context("whole", "patch"), make_items(2), 0),
        make_work(make_context("short", "cut", SHORTENED), make_items(2), 1),
    ]
    policy = replace(POLICY, engines=1, slots=1)
    hand = Hand(Core(policy, [make_patch(), make_patch("cut")], works))
    serve(hand, lambda: hand.core.finished is not None)
    assert hand.core.finished == "done"
    assert hand.core.state.tally.committed == 4
    starts = [c for c in hand.said if isinstance(c, StartWorker) and c.role is Role.ENGINE]
    assert [(c.shape.whole, c.patch_id) for c in starts] == [(True, None), (False, "cut")]
