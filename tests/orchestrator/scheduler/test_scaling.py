"""Which workers are started and retired: engines by their shapes' work, pruners ahead of need."""

from dataclasses import replace

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Retire,
    Role,
    StartWorker,
    Tick,
    WorkerLost,
)
from orchestrator.scheduler.work import PatchState
from tests.support.builders import (
    SHORTENED,
    WHOLE,
    Hand,
    make_context,
    make_patch,
    make_work,
    of_kind,
    ready,
    started,
)
from tests.support.core_steps import LOST, POLICY, made, serve
from workers.messages import PruneTask, Shape


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
    given = [c for worker in started(begun, Role.PRUNE) for c in of_kind(hand(ready(worker)), Assign)]
    (large, small) = [(c.worker, c.task) for c in given if isinstance(c.task, PruneTask)]
    assert large[1].patches[0].patch_id == "cut", "first the patch of the shape whose engine has started; it takes long"
    for event in made(*small):
        hand(event)
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
    given = [c for worker in pruners for c in of_kind(hand(ready(worker)), Assign)]
    for event in [event for c in given if isinstance(c.task, PruneTask) for event in made(c.worker, c.task)]:
        hand(event)
    # Six variants are ready: two devices go on pruning, and the others have something to evaluate.
    retired = [c.worker for c in of_kind(hand.said, Retire)]
    assert len(retired) == 4
    for worker in retired:
        hand(WorkerLost(worker, LOST))
    shapes = [c.shape for c in of_kind(hand.said, StartWorker) if c.role is Role.ENGINE]
    assert sorted(shape.model for shape in shapes) == ["model"] * 3 + ["other"] * 3
