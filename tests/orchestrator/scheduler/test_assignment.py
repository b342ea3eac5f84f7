"""Which engine gets which draws: it keeps its weights, and helps the variant that lags."""

from dataclasses import replace

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Event,
    Reported,
    Role,
    ShardNumbers,
    Tick,
)
from orchestrator.scheduler.work import PatchState
from tests.support.builders import (
    Hand,
    committed,
    make_context,
    make_patch,
    make_work,
    of_kind,
    ready,
    started,
)
from tests.support.core_steps import POLICY, serve
from workers.messages import PruneTask, Shape, TaskEnded, WantsMore

PATCH_OF = {"c0": "patch0", "c1": "patch1"}


def test_engine_changes_weights_once_for_two_variants_and_no_oftener() -> None:
    works = [make_work(make_context(f"c{n}", f"patch{n}"), 40, n) for n in range(2)]
    policy = replace(POLICY, smallest_shard=4, largest_shard=4)
    hand = Hand(Core(policy, [make_patch("patch0"), make_patch("patch1")], works))
    serve(hand, lambda: hand.core.finished is not None)
    held = [PATCH_OF[c.task.context_id] for c in of_kind(hand.said, Assign) if isinstance(c.task, ShardNumbers)]
    assert held == ["patch0"] * 10 + ["patch1"] * 10


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


def prunings(commands: list) -> list[list[str]]:
    """The patches of each pruning that `commands` assign."""
    tasks = [c.task for c in of_kind(commands, Assign) if isinstance(c.task, PruneTask)]
    return [[request.patch_id for request in task.patches] for task in tasks]


def test_patches_that_share_a_pass_are_split_over_the_pruners_that_are_up_or_coming() -> None:
    names = [f"p{n}" for n in range(6)]
    works = [make_work(make_context(name, name), 20, n) for n, name in enumerate(names)]
    patches = [make_patch(name, PatchState.OWED, "wanda", ("activations",)) for name in names]
    hand = Hand(Core(replace(POLICY, slots=2), patches, works))
    one, other = started(hand(Tick()), Role.PRUNE)
    assert prunings(hand(ready(one))) == [names[:3]], "it leaves the other half to the one that is still starting"
    assert prunings(hand(ready(other))) == [names[3:]]


def test_patches_of_another_model_or_pass_are_another_task() -> None:
    rows = [("a", "model", "x"), ("b", "other", "x"), ("c", "model", "y"), ("d", "model", "x")]
    works = [
        make_work(make_context(name, name, Shape(model, 4, "bfloat16")), 20, n)
        for n, (name, model, _) in enumerate(rows)
    ]
    patches = [make_patch(name, PatchState.OWED, "wanda", (passes,), model) for name, model, passes in rows]
    hand = Hand(Core(replace(POLICY, slots=1), patches, works))
    serve(hand, lambda: hand.core.finished is not None)
    assert sorted(prunings(hand.said)) == [["a", "d"], ["b"], ["c"]]
