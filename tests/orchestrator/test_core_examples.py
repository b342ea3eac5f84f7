"""What the core does in the cases that matter most, one by one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from orchestrator.core import Core
from orchestrator.events import (
    Assign,
    Discard,
    Finish,
    Leaving,
    RecordFailures,
    Recount,
    Recounted,
    Reported,
    Retire,
    Role,
    Slice,
    StartWorker,
    StopAsked,
    Tick,
    WorkerLost,
)
from orchestrator.work import Patched, Policy
from tests.orchestrator.builders import (
    SHORTENED,
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
from workers.messages import Ended, Failed, Failure, Graded, GradeTask, Hungry, PatchMade, PruneTask, Rejected

LOST = Failure("engine-lost", "the engine died")
POLICY = Policy(engines=1, slots=2, smallest_shard=16, largest_shard=16)


def shard_of(commands: list) -> tuple[str, Slice]:
    """The one shard that `commands` hand out, and to whom."""
    (given,) = [c for c in of_kind(commands, Assign) if isinstance(c.task, Slice)]
    return given.worker, given.task


def missing(shard: Slice, numbers: Sequence[int]) -> Recounted:
    return Recounted(shard.task_id, frozenset(numbers))


def serve(hand: Hand, until: Callable[[], bool], crash_on: frozenset[int] = frozenset()) -> None:
    """Be a fleet that does everything well, except that an engine given a draw of `crash_on` dies uncommitted."""
    todo = hand(Tick())
    for _ in range(500):
        if until():
            return
        events = []
        for command in todo:
            match command:
                case StartWorker(worker):
                    events.append(ready(worker))
                case Assign(worker, Slice() as shard) if crash_on.intersection(shard.numbers):
                    events.append(WorkerLost(worker, LOST))
                case Assign(worker, Slice() as shard):
                    events += [
                        Reported(worker, committed(shard, shard.numbers)),
                        Reported(worker, Ended(shard.task_id)),
                    ]
                case Assign(worker, PruneTask() as task):
                    events.append(Reported(worker, PatchMade(task.task_id, task.patch_id, 0.5, 1.0)))
                    events.append(Reported(worker, Ended(task.task_id)))
                case Assign(worker, GradeTask() as task):
                    events.append(Reported(worker, Graded(task.task_id, task.context_id, 1)))
                    events.append(Reported(worker, Ended(task.task_id)))
                case Recount(shard):
                    events.append(missing(shard, shard.numbers))
                case Retire(worker):
                    events.append(WorkerLost(worker, Failure("retired", "closed as asked")))
        todo = [command for event in events or [Tick()] for command in hand(event, after=1.0)]
    raise AssertionError("it does not come to an end")


def test_sweep_undisturbed_commits_everything_and_finishes() -> None:
    hand = Hand(make_core(40, POLICY, Patched.OWED))
    serve(hand, lambda: hand.core.finished is not None)
    assert hand.core.finished == "done"
    assert hand.core.state.tally.committed == 40
    assert hand.failures() == {}
    assert not len(hand.core.state.fleet)


def test_poison_draw_is_isolated_and_only_it_is_recorded_as_failed() -> None:
    hand = Hand(make_core(16, POLICY))
    serve(hand, lambda: hand.core.finished is not None, crash_on=frozenset({5}))
    assert hand.core.finished == "done"
    assert hand.core.state.tally.committed == 15
    ((draw, given_up),) = hand.failures().items()
    assert (draw, given_up.failure) == (("c", 5), LOST)
    # 16, 8, 4, 2, 1: four halvings, and then it is alone, having been lost more often than the policy asks already.
    assert given_up.attempts == 5


def test_lone_draw_lost_is_tried_as_often_as_the_policy_says() -> None:
    hand = Hand(make_core(1, replace(POLICY, attempts=3)))
    serve(hand, lambda: hand.core.finished is not None, crash_on=frozenset({0}))
    assert [given_up.attempts for given_up in hand.failures().values()] == [3]
    assert sum(isinstance(c, Assign) and isinstance(c.task, Slice) for c in hand.said) == 3


def start_engine(core: Core, commands: list | None = None) -> tuple[Hand, str, Slice]:
    hand = Hand(core)
    (engine,) = started(hand(Tick()), Role.ENGINE)
    worker, shard = shard_of(hand(ready(engine)))
    assert worker == engine
    return hand, worker, shard


def test_lost_engine_makes_only_what_the_store_lacks_again() -> None:
    hand, worker, shard = start_engine(make_core(8, POLICY))
    hand(Reported(worker, committed(shard, shard.numbers[:2])))
    (recount,) = of_kind(hand(WorkerLost(worker, LOST)), Recount)
    assert len(recount.slice.numbers) == 6
    # Three more had been committed when it died, which nobody heard.
    (engine,) = started(hand(missing(shard, shard.numbers[5:])), Role.ENGINE)
    assert hand.core.state.tally.committed == 5
    _, again = shard_of(hand(ready(engine)))
    assert set(again.numbers) < set(shard.numbers[5:])


def test_engine_with_draws_that_were_lost_before_is_fed_nothing_beside_them() -> None:
    hand = Hand(make_core(68, replace(POLICY, engines=2, smallest_shard=33, largest_shard=33)))
    one, other = started(hand(Tick()), Role.ENGINE)
    _, first = shard_of(hand(ready(one)))
    _, second = shard_of(hand(ready(other)))
    hand(WorkerLost(one, LOST))
    (third,) = started(hand(missing(first, first.numbers)), Role.ENGINE)
    _, rest = shard_of(hand(ready(third)))
    hand(Reported(third, committed(rest, rest.numbers)))
    _, again = shard_of(hand(Reported(third, Ended(rest.task_id))))
    assert set(again.numbers) < set(first.numbers)
    hand(Leaving((other,), "spot notice"))
    hand(WorkerLost(other, Failure("retired", "closed as asked")))
    hand(missing(second, second.numbers))
    assert hand.core.state.contexts["c"].fresh, "what the leaving engine hands back waits, and nobody is to blame"
    assert not of_kind(hand(Reported(third, Hungry(again.task_id))), Assign)
    hand(Reported(third, committed(again, again.numbers)))
    _, fresh = shard_of(hand(Reported(third, Ended(again.task_id))))
    assert set(fresh.numbers) == set(second.numbers)


def test_lost_draws_handed_back_by_a_leaving_engine_keep_their_losses_and_stay_together() -> None:
    hand, worker, shard = start_engine(make_core(16, POLICY))
    hand(WorkerLost(worker, LOST))
    (second,) = started(hand(missing(shard, shard.numbers)), Role.ENGINE)
    _, half = shard_of(hand(ready(second)))
    hand(Leaving((second,), "spot notice"))
    hand(WorkerLost(second, Failure("retired", "closed as asked")))
    hand(missing(half, half.numbers))
    work = hand.core.state.contexts["c"]
    assert not work.fresh
    other = tuple(number for number in shard.numbers if number not in half.numbers)
    assert {piece.numbers: piece.losses for piece in work.lost} == {half.numbers: 1, other: 1}


def test_engines_that_are_lost_while_starting_side_by_side_count_as_one_failed_start() -> None:
    hand = Hand(make_core(80, replace(POLICY, engines=3, slots=3)))
    starting = started(hand(Tick()), Role.ENGINE)
    assert len(starting) == 3
    for worker in starting:
        hand(WorkerLost(worker, Failure("worker-lost", "the machine died")), after=1.0)
    assert hand.core.state.failed_starts[Role.ENGINE] == 1
    assert hand.core.finished is None


def test_draws_that_were_committed_and_not_reported_are_graded() -> None:
    hand, worker, shard = start_engine(make_core(8, POLICY))
    (grader,) = started(hand.said, Role.GRADE)
    hand(ready(grader))
    hand(WorkerLost(worker, LOST))
    (given,) = of_kind(hand(missing(shard, ())), Assign)
    assert isinstance(given.task, GradeTask)


def test_patch_that_no_engine_can_prove_is_given_up_after_as_many_engines_as_the_policy_says() -> None:
    hand = Hand(make_core(8, replace(POLICY, attempts=2)))
    unproved = Failure("proof", "1 tensor is not in place")
    todo = hand(Tick())
    for _ in range(2):
        (engine,) = started(todo, Role.ENGINE)
        _, shard = shard_of(hand(ready(engine)))
        assert not hand.failures(), "no draw is to blame for one engine"
        hand(WorkerLost(engine, unproved))
        todo = hand(missing(shard, shard.numbers))
    assert {given_up.failure for given_up in hand.failures().values()} == {unproved}
    assert len(hand.failures()) == 8


def test_shard_ended_without_a_report_is_recounted_before_anything_is_made_again() -> None:
    hand, worker, shard = start_engine(make_core(4, POLICY))
    commands = hand(Reported(worker, Ended(shard.task_id)))
    assert of_kind(commands, Recount)
    assert not of_kind(commands, Assign)
    hand(missing(shard, []))
    assert hand.core.state.tally.committed == 4


def test_task_end_that_comes_twice_does_not_give_a_busy_worker_a_second_task() -> None:
    hand, worker, shard = start_engine(make_core(40, POLICY))
    hand(Reported(worker, committed(shard, shard.numbers)))
    _, second = shard_of(hand(Reported(worker, Ended(shard.task_id))))
    assert not of_kind(hand(Reported(worker, Ended(shard.task_id))), Assign)
    assert list(hand.core.state.fleet.get(worker).tasks.values()) == [second]


def test_patch_without_its_report_is_made_again() -> None:
    hand = Hand(make_core(4, POLICY, Patched.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (first,) = of_kind(hand(ready(pruner)), Assign)
    hand(Reported(pruner, Ended(first.task.task_id)))
    (second,) = of_kind(hand(Tick(), after=POLICY.backoff_seconds), Assign)
    assert isinstance(second.task, PruneTask)
    hand(Reported(pruner, Failed(first.task.task_id, Failure("prune", "said late"))))
    assert hand.core.state.patches["patch"].state is Patched.MAKING


def test_patch_failure_backs_off_doubling_then_gives_up_its_draws_only() -> None:
    policy = replace(POLICY, attempts=3, backoff_seconds=5.0)
    works = [
        make_work(make_context("bad", "cursed"), 3, 0),
        make_work(make_context("good", "patch"), 3, 1),
    ]
    hand = Hand(Core(policy, [make_patch("cursed", Patched.OWED), make_patch("patch")], works))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    commands = hand(ready(pruner))
    for attempt, pause in enumerate([5.0, 10.0]):
        (given,) = of_kind(commands, Assign)
        hand(Reported(pruner, Failed(given.task.task_id, Failure("prune", f"no memory {attempt}"))))
        assert not of_kind(hand(Tick(), after=pause - 0.1), Assign)
        commands = hand(Tick(), after=0.1)
    (given,) = of_kind(commands, Assign)
    hand(Reported(pruner, Failed(given.task.task_id, Failure("prune", "no memory 2"))))
    assert set(hand.failures()) == {("bad", number) for number in range(3)}
    assert {given_up.failure.cause for given_up in hand.failures().values()} == {"no memory 2"}
    assert hand.core.state.contexts["good"].draws == 3


def test_patch_of_bad_input_is_not_tried_again() -> None:
    hand = Hand(make_core(3, POLICY, Patched.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (given,) = of_kind(hand(ready(pruner)), Assign)
    hand(Reported(pruner, Failed(given.task.task_id, Failure("bad-input", "no such layer"))))
    assert [given_up.failure.kind for given_up in hand.failures().values()] == ["bad-input"] * 3


def test_nan_variant_is_final_for_every_draw_of_it() -> None:
    hand, worker, shard = start_engine(make_core(40, POLICY))
    hand(Reported(worker, Failed(shard.task_id, Failure("nan", "the canary is NaN"))))
    commands = hand(missing(shard, shard.numbers))
    assert len(hand.failures()) == 40
    assert {given_up.attempts for given_up in hand.failures().values()} == {1}
    assert not of_kind(commands, Assign)


def test_rejected_draw_is_recorded_once_and_the_shard_goes_on() -> None:
    hand, worker, shard = start_engine(make_core(4, POLICY))
    report = Reported(worker, Rejected(shard.task_id, shard.numbers[:1], Failure("bad-input", "x")))
    hand(report)
    hand(report)
    assert list(hand.failures()) == [("c", 0)]
    hand(Reported(worker, committed(shard, shard.numbers[1:])))
    hand(Reported(worker, Ended(shard.task_id)))
    assert hand.core.state.tally.committed == 3
    assert not of_kind(hand.said, Recount)


def test_committed_report_that_comes_twice_counts_once() -> None:
    hand, worker, shard = start_engine(make_core(4, POLICY))
    hand(Reported(worker, committed(shard, shard.numbers[:3])))
    hand(Reported(worker, committed(shard, shard.numbers[:3])))
    assert hand.core.state.tally.committed == 3


def test_silent_engine_is_discarded_after_its_silence_and_not_before() -> None:
    hand, worker, _ = start_engine(make_core(4, replace(POLICY, silence_seconds=60.0)))
    assert not of_kind(hand(Tick(), after=59.0), Discard)
    (discard,) = of_kind(hand(Tick(), after=2.0), Discard)
    assert (discard.worker, discard.failure.kind) == (worker, "hang")
    assert "60 s" in discard.failure.cause


def test_engine_that_reports_is_not_discarded() -> None:
    hand, worker, shard = start_engine(make_core(4, replace(POLICY, silence_seconds=60.0)))
    hand(Reported(worker, committed(shard, shard.numbers[:1])), after=50.0)
    assert not of_kind(hand(Tick(), after=50.0), Discard)


def test_pruner_may_be_silent_for_longer_than_an_engine() -> None:
    policy = replace(POLICY, silence_seconds=60.0, prune_seconds=600.0, start_seconds=900.0)
    hand = Hand(make_core(4, policy, Patched.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    hand(ready(pruner))
    for _ in range(10):
        assert not of_kind(hand(Tick(), after=50.0), Discard)
    hand(Tick(), after=50.0)
    assert pruner in {discard.worker for discard in of_kind(hand(Tick(), after=51.0), Discard)}


def test_driver_that_did_not_look_for_long_takes_nobody_for_hung() -> None:
    hand, worker, _ = start_engine(make_core(4, replace(POLICY, silence_seconds=100.0)))
    hand(Tick(), after=50.0)
    assert not of_kind(hand(Tick(), after=3600.0), Discard), "its reports may lie unread"
    assert not of_kind(hand(Tick(), after=45.0), Discard)
    (discard,) = of_kind(hand(Tick(), after=10.0), Discard)
    assert discard.worker == worker


@pytest.mark.parametrize("role", [Role.ENGINE, Role.GRADE, Role.PRUNE])
def test_three_failed_starts_of_a_role_end_the_sweep_with_a_reason(role: Role) -> None:
    state = Patched.OWED if role is Role.PRUNE else Patched.HELD
    hand = Hand(make_core(4, replace(POLICY, failed_starts=3), state))
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
                case Assign(worker, Slice() as shard):
                    events += [
                        Reported(worker, committed(shard, shard.numbers)),
                        Reported(worker, Ended(shard.task_id)),
                    ]
                case Retire(worker):
                    events.append(WorkerLost(worker, Failure("retired", "")))
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
    commands = hand(StopAsked("stopped by SIGTERM"))
    assert worker in {retire.worker for retire in of_kind(commands, Retire)}
    hand(Reported(worker, committed(shard, shard.numbers[:3])))
    hand(Reported(worker, Ended(shard.task_id)))
    hand(missing(shard, shard.numbers[3:]))
    for name in [known.worker for known in hand.core.state.fleet]:
        commands = hand(WorkerLost(name, Failure("retired", "closed as asked")))
    assert commands == [Finish("stopped by SIGTERM")]
    assert hand.core.state.tally.committed == 3
    assert hand.core.state.contexts["c"].draws == 37
    assert not of_kind(hand.said, RecordFailures)
    assert hand.core.state.tally.workers_lost == 0


def test_stop_waits_for_the_store_to_tell_what_was_committed() -> None:
    hand, worker, shard = start_engine(make_core(8, POLICY))
    hand(StopAsked("stopped by SIGTERM"))
    for known in list(hand.core.state.fleet):
        if known.worker != worker:
            hand(WorkerLost(known.worker, Failure("retired", "closed as asked")))
    assert not of_kind(hand(WorkerLost(worker, LOST)), Finish)
    assert of_kind(hand(missing(shard, shard.numbers[5:])), Finish)
    assert hand.core.state.tally.committed == 5


def test_worker_that_is_not_up_when_nothing_is_owed_any_more_holds_up_nobody() -> None:
    hand = Hand(make_core(17, replace(POLICY, engines=2)))
    one, other = started(hand(Tick()), Role.ENGINE)
    (grader,) = started(hand.said, Role.GRADE)
    hand(ready(grader))
    _, shard = shard_of(hand(ready(one)))
    (graded,) = of_kind(hand(Reported(one, committed(shard, shard.numbers))), Assign)
    _, last = shard_of(hand(Reported(one, Ended(shard.task_id))))
    hand(Reported(one, committed(last, last.numbers)))
    hand(Reported(one, Ended(last.task_id)))
    (again,) = of_kind(hand(Reported(grader, Ended(graded.task.task_id))), Assign)
    hand(Reported(grader, Ended(again.task.task_id)))
    assert [c.worker for c in of_kind(hand.said, Discard)] == [other]
    for worker in (one, other, grader):
        todo = hand(WorkerLost(worker, Failure("retired", "")))
    assert todo == [Finish("done")]
    assert not hand.core.state.tally.workers_lost


def test_stop_kills_a_pruner_at_once_and_waits_for_a_silent_store_no_longer_than_for_a_worker() -> None:
    hand = Hand(make_core(4, POLICY, Patched.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    hand(ready(pruner))
    assert pruner in {discard.worker for discard in of_kind(hand(StopAsked("stopped by SIGTERM")), Discard)}
    hand, worker, _ = start_engine(make_core(4, POLICY))
    hand(WorkerLost(worker, LOST))
    hand(StopAsked("stopped by SIGTERM"))
    for known in list(hand.core.state.fleet):
        hand(WorkerLost(known.worker, Failure("retired", "")))
    assert not of_kind(hand(Tick(), after=20.0), Finish)
    assert of_kind(hand(Tick(), after=1.0), Finish)


def test_grader_that_leaves_has_not_finished() -> None:
    hand, worker, shard = start_engine(make_core(4, POLICY))
    (grader,) = started(hand.said, Role.GRADE)
    hand(ready(grader))
    (given,) = of_kind(hand(Reported(worker, committed(shard, shard.numbers))), Assign)
    hand(Reported(worker, Ended(shard.task_id)))
    hand(Leaving((grader,), "spot notice"))
    hand(Reported(grader, Ended(given.task.task_id)))
    (second,) = started(hand(WorkerLost(grader, Failure("retired", ""))), Role.GRADE)
    (again,) = of_kind(hand(ready(second)), Assign)
    assert isinstance(again.task, GradeTask)


def test_engine_at_work_keeps_its_role_alive_whatever_fails_to_start_beside_it() -> None:
    hand = Hand(make_core(80, replace(POLICY, engines=3, slots=3, failed_starts=1)))
    one, *others = started(hand(Tick()), Role.ENGINE)
    _, shard = shard_of(hand(ready(one)))
    for worker in others:
        hand(WorkerLost(worker, Failure("hang", "no device for it")), after=1.0)
    assert not of_kind(hand(Tick(), after=30.0), StartWorker), "and no further one is tried"
    hand(Reported(one, committed(shard, shard.numbers)))
    _, more = shard_of(hand(Reported(one, Ended(shard.task_id))))
    assert more.numbers
    assert hand.core.finished is None


def test_hungry_engine_that_leaves_is_fed_no_more() -> None:
    hand = Hand(make_core(66, replace(POLICY, engines=2, smallest_shard=33, largest_shard=33)))
    one, other = started(hand(Tick()), Role.ENGINE)
    _, first = shard_of(hand(ready(one)))
    _, second = shard_of(hand(ready(other)))
    hand(Reported(one, Hungry(first.task_id)))
    hand(Leaving((one, other), "spot notice"))
    hand(WorkerLost(other, Failure("retired", "closed as asked")))
    assert not of_kind(hand(missing(second, second.numbers)), Assign)


def test_stop_with_a_worker_that_never_closes_still_ends() -> None:
    hand, worker, shard = start_engine(make_core(4, replace(POLICY, silence_seconds=60.0)))
    hand(StopAsked("stopped by SIGINT"))
    assert not of_kind(hand(Tick(), after=20.0), Discard)
    discards = of_kind(hand(Tick(), after=1.0), Discard)
    assert worker in {discard.worker for discard in discards}, "after 20 s, not 60"
    for discard in discards:
        hand(WorkerLost(discard.worker, discard.failure))
    hand(missing(shard, shard.numbers))
    assert hand.core.finished == "stopped by SIGINT"


def test_grader_lost_again_and_again_is_given_up_without_a_draw_being_harmed() -> None:
    hand = Hand(make_core(0, replace(POLICY, attempts=2)))
    hand.core.state.contexts["c"].ungraded = True
    hand.core.state.note(hand.core.state.contexts["c"])
    (grader,) = started(hand(Tick()), Role.GRADE)
    (given,) = of_kind(hand(ready(grader)), Assign)
    (grader,) = started(hand(WorkerLost(grader, LOST)), Role.GRADE)
    (again,) = of_kind(hand(ready(grader)), Assign)
    assert again.task.task_id != given.task.task_id
    hand(Reported(grader, Failed(again.task.task_id, Failure("grade", "gone"))))
    hand(WorkerLost(grader, Failure("retired", "")))
    assert hand.core.finished == "done"
    assert hand.failures() == {}


PATCH_OF = {"c0": "patch0", "c1": "patch1"}


def test_engine_changes_weights_once_for_two_variants_and_no_oftener() -> None:
    works = [make_work(make_context(f"c{n}", f"patch{n}"), 40, n) for n in range(2)]
    policy = replace(POLICY, smallest_shard=4, largest_shard=4)
    hand = Hand(Core(policy, [make_patch("patch0"), make_patch("patch1")], works))
    serve(hand, lambda: hand.core.finished is not None)
    held = [PATCH_OF[c.task.context_id] for c in of_kind(hand.said, Assign) if isinstance(c.task, Slice)]
    assert held == ["patch0"] * 10 + ["patch1"] * 10


def test_engine_of_a_shape_without_work_makes_room_for_one_that_has_some() -> None:
    works = [
        make_work(make_context("whole", "patch"), 2, 0),
        make_work(make_context("short", "cut", SHORTENED), 2, 1),
    ]
    policy = replace(POLICY, engines=1, slots=1)
    hand = Hand(Core(policy, [make_patch(), make_patch("cut")], works))
    serve(hand, lambda: hand.core.finished is not None)
    assert hand.core.finished == "done"
    assert hand.core.state.tally.committed == 4
    starts = [c for c in hand.said if isinstance(c, StartWorker) and c.role is Role.ENGINE]
    assert [(c.shape.whole, c.patch_id) for c in starts] == [(True, None), (False, "cut")]
