"""Where work goes: every shard has a sensible length, engines keep their weights, shapes are respected."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduler.placement import (
    LAGGARD_RATIO,
    MIN_DRAWS_PER_SWAP,
    ROUNDING_ALLOWANCE,
    Demand,
    IdleEngine,
    Pass,
    choose_variant,
    help_laggard,
    pruners_wanted,
    shard_length,
    share_engines,
    share_out,
)
from tests.support.builders import SHORTENED, WHOLE
from workers.messages import Shape

SHAPES = st.sampled_from([WHOLE, SHORTENED, Shape("other", 4, "bfloat16")])
ENGINES = st.integers(0, 5)


def make_demand(
    name: str, tokens: float, draws: int, engines: int, order: int, shape: Shape = WHOLE, in_flight: float = 0.0
) -> Demand:
    return Demand(name, shape, tokens, draws, in_flight, engines, order)


@st.composite
def demands(draw: st.DrawFn) -> list[Demand]:
    count = draw(st.integers(0, 6))
    waiting, draws = st.one_of(st.just(0), st.integers(1, 10_000)), st.integers(1, 300)
    return [
        make_demand(f"p{n}", draw(waiting), draw(draws), draw(ENGINES), n, draw(SHAPES), draw(st.integers(0, 10_000)))
        for n in range(count)
    ]


idle_engines = st.builds(IdleEngine, SHAPES, st.one_of(st.none(), st.integers(0, 6).map("p{}".format)))


@given(st.integers(1, 10**6), st.integers(0, 1000), st.integers(1, 64), st.integers(64, 4096))
def test_shard_is_within_its_bounds_and_never_more_than_waits(
    waiting: int, engines: int, smallest: int, largest: int
) -> None:
    length = shard_length(waiting, engines, smallest, largest)
    assert 1 <= length <= min(waiting, largest)
    assert length >= min(waiting, smallest)


@given(st.integers(1, 10**5), st.integers(1, 100), st.integers(1, 64), st.integers(64, 4096))
def test_shards_use_up_what_waits_and_never_grow(waiting: int, engines: int, smallest: int, largest: int) -> None:
    lengths = []
    while waiting:
        lengths.append(shard_length(waiting, engines, smallest, largest))
        waiting -= lengths[-1]
    assert lengths == sorted(lengths, reverse=True)


@given(idle_engines, demands())
def test_choice_fits_the_shape_and_has_work_and_is_made_whenever_there_is_one(
    engine: IdleEngine, offered: list[Demand]
) -> None:
    chosen = choose_variant(engine, offered)
    fitting = [demand for demand in offered if demand.shape == engine.shape and demand.waiting_tokens > 0]
    assert chosen is None or chosen in fitting
    if any(not demand.engines or demand.waiting_draws > demand.engines * MIN_DRAWS_PER_SWAP for demand in fitting):
        assert chosen is not None


@given(demands(), st.integers(0, 5))
def test_engine_keeps_its_weights_while_there_is_work_for_them(offered: list[Demand], which: int) -> None:
    held = make_demand("held", 1, 1, 3, 9)
    offered.insert(which, held)
    assert choose_variant(IdleEngine(WHOLE, "held"), offered) == held


@given(idle_engines, demands())
def test_engine_without_work_takes_the_most_remaining_work_per_engine(
    engine: IdleEngine, offered: list[Demand]
) -> None:
    chosen = choose_variant(engine, offered)
    if chosen is None or chosen.patch_id == engine.patch_id:
        return

    def worth(demand: Demand) -> float:
        return demand.waiting_tokens / (demand.engines + 1)

    worthy = [d for d in offered if not d.engines or d.waiting_draws > d.engines * MIN_DRAWS_PER_SWAP]
    rivals = [d for d in worthy if d.shape == engine.shape and d.waiting_tokens > 0]
    assert all(worth(chosen) >= worth(rival) for rival in rivals)
    assert all(chosen.order <= rival.order for rival in rivals if worth(rival) == worth(chosen))


def test_choice_depends_on_engines_at_work_not_on_work_alone() -> None:
    busy = make_demand("busy", 900, 900, 8, 0)
    free = make_demand("free", 200, 200, 0, 1)
    chosen = choose_variant(IdleEngine(WHOLE, None), [busy, free])
    assert chosen == free


@given(st.dictionaries(SHAPES, st.integers(0, 10_000).map(float)), st.integers(0, 50))
def test_engines_are_shared_out_among_the_shapes_that_have_work(work: dict[Shape, float], engines: int) -> None:
    shares = share_engines(work, engines)
    assert sum(shares.values()) == (engines if any(work.values()) else 0)
    assert all(work[shape] > 0 for shape, share in shares.items() if share)
    if len(some := [shape for shape in work if work[shape]]) <= engines:
        assert all(shares[shape] for shape in some)
    # Nobody's last engine is lacked more elsewhere.
    for shape, share in shares.items():
        if share > 1:
            held = work[shape] / (share - 1 + ROUNDING_ALLOWANCE)
            assert all(held * 1.000001 >= work[other] / (shares[other] + ROUNDING_ALLOWANCE) for other in some)


def test_small_shapes_have_an_engine_where_engines_suffice_and_wait_where_they_do_not() -> None:
    other = Shape("model", 2, "bfloat16")
    assert share_engines({WHOLE: 300.0, SHORTENED: 20.0, other: 10.0}, 8) == {WHOLE: 6, SHORTENED: 1, other: 1}
    assert share_engines({WHOLE: 300.0, SHORTENED: 20.0, other: 10.0}, 2) == {WHOLE: 1, SHORTENED: 1, other: 0}


def test_shape_that_lacks_hardly_an_engine_gets_none_that_would_soon_start_anew() -> None:
    assert share_engines({WHOLE: 280.0, SHORTENED: 21.0}, 30) == {WHOLE: 28, SHORTENED: 2}
    assert share_engines({WHOLE: 275.0, SHORTENED: 25.0}, 30) == {WHOLE: 27, SHORTENED: 3}


def test_devices_without_a_variant_prune_and_then_a_share_of_all() -> None:
    assert pruners_wanted(patches=28, slots=64, supplied=2) == 28
    assert pruners_wanted(patches=28, slots=16, supplied=2) == 14
    assert pruners_wanted(patches=14, slots=16, supplied=16) == 4
    assert pruners_wanted(patches=28, slots=2, supplied=1) == 1
    assert pruners_wanted(patches=3, slots=1, supplied=1) == 1
    assert pruners_wanted(patches=0, slots=8, supplied=0) == 0


@given(demands(), st.integers(0, 5), st.integers(0, 10_000), st.integers(0, 4))
def test_engine_is_lent_to_the_variant_that_would_end_last_and_only_if_those_that_stay_end_well_before(
    offered: list[Demand], engines: int, waiting: int, which: int
) -> None:
    held = make_demand("held", waiting, waiting, engines, 9)
    offered.insert(min(which, len(offered)), held)
    other = help_laggard(held, offered)
    # Each variant of the ones it could go to: what is left there per engine, from the definition.
    ends = {d.order: (d.waiting_tokens + d.in_flight_tokens) / max(1, d.engines) for d in offered if d is not held}
    worth = {d.order for d in offered if d is not held and d.waiting_draws > 32 * max(1, d.engines)}
    if other is None:
        alone = held.waiting_tokens / (held.engines - 1) if held.engines > 1 else float("inf")
        assert all(alone > LAGGARD_RATIO * ends[order] for order in worth)
        return
    assert other.order in worth
    assert ends[other.order] == max(ends[order] for order in worth)
    assert held.engines >= 2, "somebody stays"
    assert held.waiting_tokens / (held.engines - 1) <= LAGGARD_RATIO * ends[other.order]


def test_what_engines_were_given_counts_for_who_ends_last() -> None:
    held = make_demand("held", 300, 300, 2, 0)
    deep, shallow = make_demand("deep", 300, 300, 1, 1, in_flight=900), make_demand("shallow", 350, 300, 1, 2)
    assert help_laggard(held, [held, shallow]) is None
    assert help_laggard(held, [held, shallow, deep]) == deep
    assert help_laggard(replace(held, in_flight_tokens=900), [held, shallow, deep]) is None


def test_engine_does_not_crowd_a_variant_while_others_are_on_their_way() -> None:
    crowded = make_demand("crowded", 900, 900, 2, 0)
    assert choose_variant(IdleEngine(WHOLE, None, engines_per_variant=2), [crowded]) is None
    assert choose_variant(IdleEngine(WHOLE, None), [crowded]) == crowded
    assert choose_variant(IdleEngine(WHOLE, "crowded", engines_per_variant=2), [crowded]) == crowded


PASSES = st.dictionaries(
    st.integers(0, 30).map(str),
    st.lists(
        st.sampled_from([("m", "a"), ("m", "b"), ("m", "c"), ("n", "a"), ("n", "b")]), unique=True, max_size=3
    ).map(tuple),
    max_size=24,
)


def connected(passes: Mapping[str, tuple[Pass, ...]]) -> set[frozenset[str]]:
    """The groups of patches that passes connect, found by spreading from each patch."""
    groups = set()
    for patch in passes:
        group, spread = {patch}, True
        while spread:
            near = {p for p in passes if any(set(passes[p]) & set(passes[other]) for other in group)}
            spread, group = not near <= group, group | near
        groups.add(frozenset(group))
    return groups


@given(PASSES, st.integers(0, 12), st.integers(1, 9))
def test_patches_are_pruned_with_what_they_share_in_as_many_tasks_as_pruners(
    passes: Mapping[str, tuple[Pass, ...]], pruners: int, most: int
) -> None:
    tasks = share_out(passes, pruners, most)
    assert sorted(patch for task in tasks for patch in task) == sorted(passes)
    groups = connected(passes)
    assert all(any(group.issuperset(task) for group in groups) for task in tasks), "what shares nothing stays apart"
    assert max(map(len, tasks), default=0) <= most
    assert len(tasks) >= min(pruners, len(passes))
    longest = max(map(len, groups), default=0)
    if longest <= most and pruners <= len(groups):
        assert set(map(frozenset, tasks)) == groups, "nothing is cut without need"


def test_halves_share_as_much_as_they_can() -> None:
    outliers, both, gradients = (
        (("m", "activations"),),
        (("m", "activations"), ("m", "gradients")),
        (("m", "gradients"),),
    )
    passes = {"g1": gradients, "o1": outliers, "b1": both, "o2": outliers, "g2": gradients, "o3": outliers}
    assert share_out(passes, 2, 16) == [["o1", "o2", "o3"], ["b1", "g1", "g2"]]
