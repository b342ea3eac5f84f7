"""What the core does with draws, patches and gradings in the cases that matter most. Ends are in test_core_ends.py."""

from dataclasses import replace

import pytest

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    FindMissing,
    NodeDraining,
    Reported,
    Role,
    ShardNumbers,
    Tick,
    WorkerLost,
)
from orchestrator.scheduler.work import PatchState, Policy
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
from tests.support.core_steps import LOST, POLICY, missing, serve, shard_of, start_engine
from workers.failure import Failure, FailureKind
from workers.messages import GradeTask, PatchFailed, PatchMade, PruneTask, Rejected, TaskEnded, TaskFailed, WantsMore


def test_sweep_undisturbed_commits_everything_and_finishes() -> None:
    hand = Hand(make_core(40, POLICY, PatchState.OWED))
    serve(hand, lambda: hand.core.finished is not None)
    assert hand.core.finished == "done"
    assert hand.core.state.counters.committed == 40
    assert hand.failures() == {}
    assert not len(hand.core.state.fleet)


def test_poison_draw_is_isolated_and_only_it_is_recorded_as_failed() -> None:
    hand = Hand(make_core(16, POLICY))
    serve(hand, lambda: hand.core.finished is not None, crash_on=frozenset({5}))
    assert hand.core.finished == "done"
    assert hand.core.state.counters.committed == 15
    ((draw, given_up),) = hand.failures().items()
    assert (draw, given_up.failure) == (("c", 5), LOST)
    # 16, 8, 4, 2, 1: four halvings, and then it is alone, having been lost more often than the policy asks already.
    assert given_up.attempts == 5


def test_lone_draw_lost_is_tried_as_often_as_the_policy_says() -> None:
    hand = Hand(make_core(1, replace(POLICY, attempts=3)))
    serve(hand, lambda: hand.core.finished is not None, crash_on=frozenset({0}))
    assert [given_up.attempts for given_up in hand.failures().values()] == [3]
    assert sum(isinstance(c, Assign) and isinstance(c.task, ShardNumbers) for c in hand.said) == 3


def test_lost_engine_makes_only_what_the_store_lacks_again() -> None:
    hand, worker, shard = start_engine(make_core(8, POLICY))
    hand(Reported(worker, committed(shard, shard.numbers[:2])))
    (recount,) = of_kind(hand(WorkerLost(worker, LOST)), FindMissing)
    assert len(recount.shard.numbers) == 6
    # Three more had been committed when it died, which nobody heard.
    (engine,) = started(hand(missing(shard, shard.numbers[5:])), Role.ENGINE)
    assert hand.core.state.counters.committed == 5
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
    _, again = shard_of(hand(Reported(third, TaskEnded(rest.task_id))))
    assert set(again.numbers) < set(first.numbers)
    hand(NodeDraining((other,), "spot notice"))
    hand(WorkerLost(other, Failure(FailureKind.RETIRED, "closed as asked")))
    hand(missing(second, second.numbers))
    assert hand.core.state.contexts["c"].fresh, "what the leaving engine hands back waits, and nobody is to blame"
    assert not of_kind(hand(Reported(third, WantsMore(again.task_id))), Assign)
    hand(Reported(third, committed(again, again.numbers)))
    _, fresh = shard_of(hand(Reported(third, TaskEnded(again.task_id))))
    assert set(fresh.numbers) == set(second.numbers)


def test_lost_draws_handed_back_by_a_leaving_engine_keep_their_losses_and_stay_together() -> None:
    hand, worker, shard = start_engine(make_core(16, POLICY))
    hand(WorkerLost(worker, LOST))
    (second,) = started(hand(missing(shard, shard.numbers)), Role.ENGINE)
    _, half = shard_of(hand(ready(second)))
    hand(NodeDraining((second,), "spot notice"))
    hand(WorkerLost(second, Failure(FailureKind.RETIRED, "closed as asked")))
    hand(missing(half, half.numbers))
    work = hand.core.state.contexts["c"]
    assert not work.fresh
    other = tuple(number for number in shard.numbers if number not in half.numbers)
    assert {group.numbers: group.losses for group in work.retries} == {half.numbers: 1, other: 1}


def test_engines_that_are_lost_while_starting_side_by_side_count_as_one_failed_start() -> None:
    hand = Hand(make_core(80, replace(POLICY, engines=3, slots=3)))
    starting = started(hand(Tick()), Role.ENGINE)
    assert len(starting) == 3
    for worker in starting:
        hand(WorkerLost(worker, Failure(FailureKind.WORKER_LOST, "the machine died")), after=1.0)
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
    unproved = Failure(FailureKind.PROOF, "1 tensor is not in place")
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
    commands = hand(Reported(worker, TaskEnded(shard.task_id)))
    assert of_kind(commands, FindMissing)
    assert not of_kind(commands, Assign)
    hand(missing(shard, []))
    assert hand.core.state.counters.committed == 4


def test_task_end_that_comes_twice_does_not_give_a_busy_worker_a_second_task() -> None:
    hand, worker, shard = start_engine(make_core(40, POLICY))
    hand(Reported(worker, committed(shard, shard.numbers)))
    _, second = shard_of(hand(Reported(worker, TaskEnded(shard.task_id))))
    assert not of_kind(hand(Reported(worker, TaskEnded(shard.task_id))), Assign)
    assert list(hand.core.state.fleet.get(worker).tasks.values()) == [second]


def test_patch_without_its_report_is_made_again() -> None:
    hand = Hand(make_core(4, POLICY, PatchState.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (first,) = of_kind(hand(ready(pruner)), Assign)
    hand(Reported(pruner, TaskEnded(first.task.task_id)))
    (second,) = of_kind(hand(Tick(), after=POLICY.backoff_seconds), Assign)
    assert isinstance(second.task, PruneTask)
    hand(Reported(pruner, TaskFailed(first.task.task_id, Failure(FailureKind.PRUNE, "said late"))))
    assert hand.core.state.patches["patch"].state is PatchState.MAKING


def test_patch_failure_backs_off_doubling_then_gives_up_its_draws_only() -> None:
    policy = replace(POLICY, attempts=3, backoff_seconds=5.0)
    works = [
        make_work(make_context("bad", "cursed"), 3, 0),
        make_work(make_context("good", "patch"), 3, 1),
    ]
    hand = Hand(Core(policy, [make_patch("cursed", PatchState.OWED), make_patch("patch")], works))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    commands = hand(ready(pruner))
    for attempt, pause in enumerate([5.0, 10.0]):
        (given,) = of_kind(commands, Assign)
        hand(Reported(pruner, TaskFailed(given.task.task_id, Failure(FailureKind.PRUNE, f"no memory {attempt}"))))
        assert not of_kind(hand(Tick(), after=pause - 0.1), Assign)
        commands = hand(Tick(), after=0.1)
    (given,) = of_kind(commands, Assign)
    hand(Reported(pruner, TaskFailed(given.task.task_id, Failure(FailureKind.PRUNE, "no memory 2"))))
    assert set(hand.failures()) == {("bad", number) for number in range(3)}
    assert {given_up.failure.cause for given_up in hand.failures().values()} == {"no memory 2"}
    assert hand.core.state.contexts["good"].waiting_draws == 3


ONE_DEVICE = replace(POLICY, slots=1)


def sharing(count: int, policy: Policy = ONE_DEVICE) -> tuple[Hand, str, PruneTask]:
    """A core that owes patches p0, p1, ... of one pass and two draws of each, its pruner, and the pruner's task."""
    works = [make_work(make_context(f"c{n}", f"p{n}"), 2, n) for n in range(count)]
    patches = [make_patch(f"p{n}", PatchState.OWED, "magnitude", ("activations",)) for n in range(count)]
    hand = Hand(Core(policy, patches, works))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (given,) = of_kind(hand(ready(pruner)), Assign)
    assert isinstance(given.task, PruneTask)
    return hand, pruner, given.task


def patch_ids(task: PruneTask) -> list[str]:
    return [request.patch_id for request in task.patches]


def prunings(commands: list) -> list[list[str]]:
    """The patches of each pruning that `commands` assign."""
    return [patch_ids(c.task) for c in of_kind(commands, Assign) if isinstance(c.task, PruneTask)]


def test_patches_that_share_a_pass_are_one_task_and_each_can_be_evaluated_when_it_is_made() -> None:
    hand, pruner, task = sharing(3)
    assert patch_ids(task) == ["p0", "p1", "p2"]
    hand(Reported(pruner, PatchMade(task.task_id, "p1", 0.5, 1.0)))
    assert [list(patches) for patches in hand.core.state.runnable.values()] == [["p1"]]
    assert {name: patch.state for name, patch in hand.core.state.patches.items()} == {
        "p0": PatchState.MAKING, "p1": PatchState.STORED, "p2": PatchState.MAKING,
    }  # fmt: skip


def test_pruner_that_dies_loses_what_it_had_not_reported_and_each_of_it_is_then_made_alone() -> None:
    hand, pruner, task = sharing(3, replace(ONE_DEVICE, attempts=1))
    hand(Reported(pruner, PatchMade(task.task_id, "p1", 0.5, 1.0)))
    (again,) = started(hand(WorkerLost(pruner, LOST)), Role.PRUNE)
    assert not hand.failures(), "which of the two was at fault is not known"
    assert prunings(hand(ready(again), after=POLICY.backoff_seconds)) == [["p0"]]
    (pruner,) = started(hand(WorkerLost(again, LOST)), Role.PRUNE)
    assert set(hand.failures()) == {("c0", 0), ("c0", 1)}, "p0 was alone, and the policy allows one attempt"
    assert prunings(hand(ready(pruner), after=POLICY.backoff_seconds)) == [["p2"]]


def test_patch_that_fails_by_itself_is_given_up_and_its_pruning_goes_on() -> None:
    hand, pruner, task = sharing(3)
    hand(Reported(pruner, PatchFailed(task.task_id, "p1", Failure(FailureKind.BAD_INPUT, "no such layer"))))
    assert set(hand.failures()) == {("c1", 0), ("c1", 1)}
    for name in ("p0", "p2"):
        hand(Reported(pruner, PatchMade(task.task_id, name, 0.5, 1.0)))
    assert not prunings(hand(Reported(pruner, TaskEnded(task.task_id))))
    assert [hand.core.state.patches[name].attempts for name in ("p0", "p2")] == [0, 0]


def test_pruner_that_is_asked_to_close_gives_back_what_it_has_not_made_and_nobody_is_blamed() -> None:
    hand, pruner, task = sharing(3)
    hand(NodeDraining((pruner,), "spot notice"))
    hand(Reported(pruner, PatchMade(task.task_id, "p0", 0.5, 1.0)))
    hand(Reported(pruner, TaskEnded(task.task_id)))
    (again,) = started(hand(WorkerLost(pruner, Failure(FailureKind.RETIRED, "closed as asked"))), Role.PRUNE)
    assert prunings(hand(ready(again), after=POLICY.backoff_seconds)) == [["p1", "p2"]]


def test_failure_of_a_patch_that_comes_after_its_pruner_was_lost_changes_nothing() -> None:
    hand, pruner, task = sharing(2)
    (again,) = started(hand(WorkerLost(pruner, LOST)), Role.PRUNE)
    hand(ready(again), after=POLICY.backoff_seconds)
    hand(Reported(pruner, PatchFailed(task.task_id, "p0", Failure(FailureKind.BAD_INPUT, "said late"))))
    assert not hand.failures()


def test_patch_of_bad_input_is_not_tried_again() -> None:
    hand = Hand(make_core(3, POLICY, PatchState.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (given,) = of_kind(hand(ready(pruner)), Assign)
    hand(Reported(pruner, TaskFailed(given.task.task_id, Failure(FailureKind.BAD_INPUT, "no such layer"))))
    assert [given_up.failure.kind for given_up in hand.failures().values()] == ["bad-input"] * 3


@pytest.mark.parametrize("kind", [FailureKind.NAN, FailureKind.CANARY])
def test_variant_whose_canary_is_nan_or_differs_is_given_up_at_once_and_costs_no_engine(kind: FailureKind) -> None:
    hand, worker, shard = start_engine(make_core(40, POLICY))
    hand(Reported(worker, TaskFailed(shard.task_id, Failure(kind, "so the canary says"))))
    commands = hand(missing(shard, shard.numbers))
    assert len(hand.failures()) == 40
    assert {given_up.attempts for given_up in hand.failures().values()} == {1}
    assert not of_kind(commands, Assign)
    assert started(hand.said, Role.ENGINE) == [worker]


def test_rejected_draw_is_recorded_once_and_the_shard_goes_on() -> None:
    hand, worker, shard = start_engine(make_core(4, POLICY))
    report = Reported(worker, Rejected(shard.task_id, shard.numbers[:1], Failure(FailureKind.BAD_INPUT, "x")))
    hand(report)
    hand(report)
    assert list(hand.failures()) == [("c", 0)]
    hand(Reported(worker, committed(shard, shard.numbers[1:])))
    hand(Reported(worker, TaskEnded(shard.task_id)))
    assert hand.core.state.counters.committed == 3
    assert not of_kind(hand.said, FindMissing)


def test_committed_report_that_comes_twice_counts_once() -> None:
    hand, worker, shard = start_engine(make_core(4, POLICY))
    hand(Reported(worker, committed(shard, shard.numbers[:3])))
    hand(Reported(worker, committed(shard, shard.numbers[:3])))
    assert hand.core.state.counters.committed == 3


def test_grader_lost_again_and_again_is_given_up_without_a_draw_being_harmed() -> None:
    hand = Hand(make_core(0, replace(POLICY, attempts=2)))
    hand.core.state.contexts["c"].ungraded = True
    hand.core.state.reindex(hand.core.state.contexts["c"])
    (grader,) = started(hand(Tick()), Role.GRADE)
    (given,) = of_kind(hand(ready(grader)), Assign)
    (grader,) = started(hand(WorkerLost(grader, LOST)), Role.GRADE)
    (again,) = of_kind(hand(ready(grader)), Assign)
    assert again.task.task_id != given.task.task_id
    hand(Reported(grader, TaskFailed(again.task.task_id, Failure(FailureKind.WORKER_ERROR, "gone"))))
    hand(WorkerLost(grader, Failure(FailureKind.RETIRED, "")))
    assert hand.core.finished == "done"
    assert hand.failures() == {}
