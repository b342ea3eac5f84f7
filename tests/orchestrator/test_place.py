"""Where work goes: every shard has a sensible length, engines keep their weights, shapes are respected."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.place import WORTH_A_SWAP, Demand, Idle, allot, choose, pruners_wanted, shard_length
from tests.orchestrator.builders import SHORTENED, WHOLE
from workers.messages import Shape

SHAPES = st.sampled_from([WHOLE, SHORTENED, Shape("other", 4, "bfloat16")])
ENGINES = st.integers(0, 5)


@st.composite
def demands(draw: st.DrawFn) -> list[Demand]:
    count = draw(st.integers(0, 6))
    waiting, draws = st.one_of(st.just(0), st.integers(1, 10_000)), st.integers(1, 300)
    return [Demand(f"p{n}", draw(SHAPES), draw(waiting), draw(draws), draw(ENGINES), n) for n in range(count)]


idle_engines = st.builds(Idle, st.just("engine-1"), SHAPES, st.one_of(st.none(), st.integers(0, 6).map("p{}".format)))


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
    engine: Idle, offered: list[Demand]
) -> None:
    chosen = choose(engine, offered)
    fitting = [demand for demand in offered if demand.shape == engine.shape and demand.waiting > 0]
    assert chosen is None or chosen in fitting
    if any(not demand.engines or demand.draws > demand.engines * WORTH_A_SWAP for demand in fitting):
        assert chosen is not None


@given(demands(), st.integers(0, 5))
def test_engine_keeps_its_weights_while_there_is_work_for_them(offered: list[Demand], which: int) -> None:
    held = Demand("held", WHOLE, 1, 1, 3, 9)
    offered.insert(which, held)
    assert choose(Idle("engine-1", WHOLE, "held"), offered) == held


@given(idle_engines, demands())
def test_engine_without_work_takes_the_most_remaining_work_per_engine(engine: Idle, offered: list[Demand]) -> None:
    chosen = choose(engine, offered)
    if chosen is None or chosen.patch_id == engine.patch_id:
        return

    def worth(demand: Demand) -> float:
        return demand.waiting / (demand.engines + 1)

    worthy = [d for d in offered if not d.engines or d.draws > d.engines * WORTH_A_SWAP]
    rivals = [d for d in worthy if d.shape == engine.shape and d.waiting > 0]
    assert all(worth(chosen) >= worth(rival) for rival in rivals)
    assert all(chosen.order <= rival.order for rival in rivals if worth(rival) == worth(chosen))


def test_choice_depends_on_engines_at_work_not_on_work_alone() -> None:
    busy = Demand("busy", WHOLE, 900, 900, 8, 0)
    free = Demand("free", WHOLE, 200, 200, 0, 1)
    chosen = choose(Idle("engine-1", WHOLE, None), [busy, free])
    assert chosen == free


@given(st.dictionaries(SHAPES, st.integers(0, 10_000).map(float)), st.integers(0, 50))
def test_engines_are_shared_out_among_the_shapes_that_have_work(work: dict[Shape, float], engines: int) -> None:
    shares = allot(work, engines)
    assert sum(shares.values()) == (engines if any(work.values()) else 0)
    assert all(work[shape] > 0 for shape, share in shares.items() if share)
    if len(some := [shape for shape in work if work[shape]]) <= engines:
        assert all(shares[shape] for shape in some)
    # Nobody's last engine is lacked more elsewhere.
    for shape, share in shares.items():
        if share > 1:
            assert all(work[shape] / (share - 1) >= work[other] / shares[other] for other in some)


def test_small_shapes_are_done_early_where_engines_suffice_and_wait_where_they_do_not() -> None:
    other = Shape("model", 2, "bfloat16", whole=False)
    assert allot({WHOLE: 300.0, SHORTENED: 20.0, other: 10.0}, 8) == {WHOLE: 6, SHORTENED: 1, other: 1}
    assert allot({WHOLE: 300.0, SHORTENED: 20.0, other: 10.0}, 2) == {WHOLE: 1, SHORTENED: 1, other: 0}
    assert allot({WHOLE: 300.0, SHORTENED: 20.0}, 32) == {WHOLE: 30, SHORTENED: 2}


def test_pruning_takes_a_share_of_the_devices_and_all_that_are_idle() -> None:
    assert pruners_wanted(33, 64, 0) == 16
    assert pruners_wanted(28, 64, 0) == 28
    assert pruners_wanted(28, 2, 0) == 1
    assert pruners_wanted(48, 64, 20) == 20
    assert pruners_wanted(3, 64, 20) == 3


def test_engine_does_not_crowd_a_variant_while_others_are_on_their_way() -> None:
    crowded = Demand("crowded", WHOLE, 900, 900, 2, 0)
    assert choose(Idle("engine-1", WHOLE, None, crowd=2), [crowded]) is None
    assert choose(Idle("engine-1", WHOLE, None), [crowded]) == crowded
    assert choose(Idle("engine-1", WHOLE, "crowded", crowd=2), [crowded]) == crowded
