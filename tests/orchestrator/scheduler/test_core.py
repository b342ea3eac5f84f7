"""What the core does with draws, patches and gradings in the cases that matter most. Ends are in test_core_ends.py."""

from collections.abc import Callable
from dataclasses import replace

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Event,
    FindMissing,
    NodeDraining,
    Reported,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
    Tick,
    WorkerLost,
)
from orchestrator.scheduler.work import PatchState
from tests.support.builders import (
    SHORTENED,
    WHOLE,
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
from workers.messages import Graded, GradeTask, PatchMade, PruneTask, Rejected, Shape, TaskEnded, TaskFailed, WantsMore


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
                case Assign(worker, ShardNumbers() as shard) if crash_on.intersection(shard.numbers):
                    events.append(WorkerLost(worker, LOST))
                case Assign(worker, ShardNumbers() as shard):
                    events += [
                        Reported(worker, committed(shard, shard.numbers)),
                        Reported(worker, TaskEnded(shard.task_id)),
                    ]
                case Assign(worker, PruneTask() as task):
                    events.append(Reported(worker, PatchMade(task.task_id, task.patch_id, 0.5, 1.0)))
                    events.append(Reported(worker, TaskEnded(task.task_id)))
                case Assign(worker, GradeTask() as task):
                    events.append(Reported(worker, Graded(task.task_id, task.context_id, 1)))
                    events.append(Reported(worker, TaskEnded(task.task_id)))
                case FindMissing(shard):
                    events.append(missing(shard, shard.numbers))
                case Retire(worker):
                    events.append(WorkerLost(worker, Failure(FailureKind.RETIRED, "closed as asked")))
        todo = [command for event in events or [Tick()] for command in hand(event, after=1.0)]
    raise AssertionError("it does not come to an end")


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
    assert len(recount.slice.numbers) == 6
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


def test_patch_of_bad_input_is_not_tried_again() -> None:
    hand = Hand(make_core(3, POLICY, PatchState.OWED))
    (pruner,) = started(hand(Tick()), Role.PRUNE)
    (given,) = of_kind(hand(ready(pruner)), Assign)
    hand(Reported(pruner, TaskFailed(given.task.task_id, Failure(FailureKind.BAD_INPUT, "no such layer"))))
    assert [given_up.failure.kind for given_up in hand.failures().values()] == ["bad-input"] * 3


def test_nan_variant_is_final_for_every_draw_of_it() -> None:
    hand, worker, shard = start_engine(make_core(40, POLICY))
    hand(Reported(worker, TaskFailed(shard.task_id, Failure(FailureKind.NAN, "the canary is NaN"))))
    commands = hand(missing(shard, shard.numbers))
    assert len(hand.failures()) == 40
    assert {given_up.attempts for given_up in hand.failures().values()} == {1}
    assert not of_kind(commands, Assign)


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


PATCH_OF = {"c0": "patch0", "c1": "patch1"}


def test_engine_changes_weights_once_for_two_variants_and_no_oftener() -> None:
    works = [make_work(make_context(f"c{n}", f"patch{n}"), 40, n) for n in range(2)]
    policy = replace(POLICY, smallest_shard=4, largest_shard=4)
    hand = Hand(Core(policy, [make_patch("patch0"), make_patch("patch1")], works))
    serve(hand, lambda: hand.core.finished is not None)
    held = [PATCH_OF[c.task.context_id] for c in of_kind(hand.said, Assign) if isinstance(c.task, ShardNumbers)]
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
    assert hand.core.state.counters.committed == 4
    starts = [c for c in hand.said if isinstance(c, StartWorker) and c.role is Role.ENGINE]
    assert [c.shape for c in starts] == [WHOLE, SHORTENED]


def test_engine_starts_while_the_first_patch_of_its_shape_is_made() -> None:
    work = make_work(make_context("short", "cut", SHORTENED), 2)
    hand = Hand(Core(POLICY, [make_patch("cut", PatchState.OWED)], [work]))
    assert [(c.role, c.shape) for c in of_kind(hand(Tick()), StartWorker) if c.role is not Role.GRADE] == [
        (Role.PRUNE, None),
        (Role.ENGINE, SHORTENED),
    ]


def test_variant_that_can_be_evaluated_goes_before_a_shape_of_more_work_without_a_patch() -> None:
    works = [
        make_work(make_context("dense"), 40),
        *(make_work(make_context(f"s{n}", f"s{n}", SHORTENED), 40, n + 1) for n in range(4)),
    ]
    patches = [make_patch(), *(make_patch(f"s{n}", PatchState.OWED, "shortgpt") for n in range(4))]
    hand = Hand(Core(POLICY, patches, works))
    serve(hand, lambda: hand.core.finished is not None)
    assert hand.core.state.counters.committed == 200
    assert [c.shape for c in of_kind(hand.said, StartWorker) if c.role is Role.ENGINE] == [WHOLE, SHORTENED]


def test_engine_that_waits_for_a_patch_makes_room_in_the_end_for_what_could_be_evaluated() -> None:
    works = [make_work(make_context("large", "cut", SHORTENED), 90), make_work(make_context("small", "whole"), 30, 1)]
    patches = [make_patch("cut", PatchState.OWED, "shortgpt"), make_patch("whole", PatchState.OWED, "wanda")]
    hand = Hand(Core(replace(POLICY, slots=3, patch_patience=45.0), patches, works))
    begun = hand(Tick())
    (engine,) = started(begun, Role.ENGINE)
    hand(ready(engine))
    made = {c.task.patch_id: c for worker in started(begun, Role.PRUNE) for c in of_kind(hand(ready(worker)), Assign)}
    assert list(made) == ["cut", "whole"], "first the patch of the shape whose engine has started; it takes long"
    task = made["whole"].task
    hand(Reported(made["whole"].worker, PatchMade(task.task_id, "whole", 0.5, 1.0)))
    hand(Reported(made["whole"].worker, TaskEnded(task.task_id)))
    assert Retire(engine) not in hand(Tick(), 44.0)
    assert Retire(engine) in hand(Tick(), 2.0)
    (start,) = of_kind(hand(WorkerLost(engine, LOST)), StartWorker)
    assert start.shape == WHOLE


def test_devices_prune_until_every_one_has_a_variant_and_shapes_are_served_in_turn() -> None:
    other = Shape("other", 4, "bfloat16")
    works = [
        make_work(make_context(f"{shape.model}{n}", f"{shape.model}{n}", shape), 100, n)
        for shape in (WHOLE, other)
        for n in range(6)
    ]
    methods = ("dense", *["wanda"] * 5) * 2
    patches = [
        make_patch(w.context.patch_id, PatchState.OWED, method) for w, method in zip(works, methods, strict=True)
    ]
    hand = Hand(Core(replace(POLICY, engines=8, slots=8), patches, works))
    begun = of_kind(hand(Tick()), StartWorker)
    assert sorted(start.shape.model for start in begun if start.shape) == ["model", "other"], (
        "one engine for each model"
    )
    pruners = [start.worker for start in begun if start.role is Role.PRUNE]
    assert len(pruners) == 6
    tasks = {c.worker: c.task for worker in pruners for c in of_kind(hand(ready(worker)), Assign)}
    for worker, task in tasks.items():
        hand(Reported(worker, PatchMade(task.task_id, task.patch_id, 0.5, 1.0)))
        hand(Reported(worker, TaskEnded(task.task_id)))
    # Six variants are ready: two devices go on pruning, and the others have something to evaluate.
    retired = [c.worker for c in of_kind(hand.said, Retire)]
    assert len(retired) == 4
    for worker in retired:
        hand(WorkerLost(worker, LOST))
    shapes = [c.shape for c in of_kind(hand.said, StartWorker) if c.role is Role.ENGINE]
    assert sorted(shape.model for shape in shapes) == ["model"] * 3 + ["other"] * 3


def test_engine_goes_over_to_a_variant_that_lags_when_what_it_has_is_done() -> None:
    works = [make_work(make_context(f"c{n}", f"patch{n}"), 160, n) for n in range(2)]
    hand = Hand(Core(replace(POLICY, engines=3, slots=3), [make_patch("patch0"), make_patch("patch1")], works))
    has: dict[str, ShardNumbers] = {}

    def tell(event: Event) -> list[str]:
        """The contexts of what is handed out."""
        given = {c.worker: c.task for c in of_kind(hand(event), Assign) if isinstance(c.task, ShardNumbers)}
        has.update(given)
        return [shard.context_id for shard in given.values()]

    def finish(worker: str) -> list[str]:
        hand(Reported(worker, committed(has[worker], has[worker].numbers)))
        return tell(Reported(worker, TaskEnded(has[worker].task_id)))

    def hungry(worker: str) -> list[str]:
        return tell(Reported(worker, WantsMore(has[worker].task_id)))

    for worker in started(hand(Tick()), Role.ENGINE):
        tell(ready(worker))
    assert [shard.context_id for shard in has.values()] == ["c0", "c1", "c0"]
    first, _, second = has
    for worker in (first, second) * 2:
        assert finish(worker) == ["c0"]
    # 96 of its 160 draws are left, for the one engine that would stay; of the other variant, all 160 for one.
    assert hungry(second) == [], "it is to go, so it gets no more"
    assert hungry(second) == [], "nor what it will hold, before it does"
    assert hungry(first) == ["c0"], "one goes, not both"
    assert finish(second) == ["c1"]
