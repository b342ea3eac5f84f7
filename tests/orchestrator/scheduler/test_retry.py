"""What a variant costs whose draws give NaN: few engines, and no draw that is not at fault."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import NodeDraining, Role, Tick, WorkerLost
from orchestrator.scheduler.work import Policy
from tests.support.builders import WHOLE, make_context, make_core, make_patch, make_work
from tests.support.core_steps import missing, start_engine
from tests.support.core_world import World
from workers.failure import Failure, FailureKind

POLICY = Policy(engines=1, slots=2, attempts=3, smallest_shard=16, largest_shard=128)


def run(draws: int, nan: Iterable[int], named: bool, policy: Policy = POLICY, at_once: int = 3) -> tuple[World, int]:
    """A sweep of one context, of whose draws some give NaN; and how many engines it started."""
    core = Core(policy, [make_patch()], [make_work(make_context("c"), draws)])
    nan_draws = frozenset(("c", number) for number in nan)
    world = World(core, {"patch": WHOLE}, set(), set(), set(), set(), nan_draws, named)
    world.tell(Tick())
    world.recover(draws=at_once)
    assert world.finishes == ["done"]
    return world, sum(process.start.role is Role.ENGINE for process in world.processes.values())


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("draws", [16, 128, 512])
def test_variant_whose_every_draw_gives_nan_costs_at_most_three_engines(draws: int, named: bool) -> None:
    world, engines = run(draws, range(draws), named)
    assert engines <= 3
    assert set(world.failed) == world.owed


def test_engines_that_die_together_of_a_variant_that_always_gives_nan_leave_the_rest_to_probes() -> None:
    world, engines = run(512, range(512), named=False, policy=replace(POLICY, engines=8, slots=8))
    assert engines <= 8 + 2
    assert set(world.failed) == world.owed


@given(
    st.integers(2, 40).flatmap(lambda draws: st.tuples(st.just(draws), st.frozensets(st.integers(0, draws - 1)))),
    st.booleans(),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 4),
    st.sampled_from([3, 100]),
)
def test_good_draw_is_given_up_only_with_a_variant_of_which_nothing_was_ever_committed(
    case: tuple[int, frozenset[int]], named: bool, engines: int, attempts: int, at_once: int
) -> None:
    draws, nan = case
    policy = replace(POLICY, engines=engines, slots=engines, attempts=attempts, smallest_shard=4)
    world, _ = run(draws, nan, named, policy, at_once)
    bad = {("c", number) for number in nan}
    assert set(world.failed) | world.store == world.owed
    assert bad <= set(world.failed)
    if set(world.failed) != bad:
        assert not world.store, "a variant that has been sampled loses only the draws that give NaN"
        assert len(bad) >= max(2, attempts) - 1, "so many probes gave NaN"


def test_variant_that_was_sampled_before_is_never_taken_for_one_that_always_gives_nan() -> None:
    core = Core(POLICY, [replace(make_patch(), sampled=True)], [make_work(make_context("c"), 16)])
    world = World(core, {"patch": WHOLE}, set(), set(), set(), set(), frozenset(("c", n) for n in range(15)), True)
    world.tell(Tick())
    world.recover(draws=1)
    assert world.store == {("c", 15)}


@pytest.mark.parametrize(("named", "most"), [(True, 2), (False, 8)])
@pytest.mark.parametrize("at", [0, 63, 127])
def test_one_draw_of_many_that_gives_nan_is_given_up_alone(at: int, named: bool, most: int) -> None:
    world, engines = run(128, [at], named)
    assert set(world.failed) == {("c", at)}
    assert len(world.store) == 127
    assert engines <= most, "an engine that cannot name the draw is lost once for each halving"


def test_draws_that_give_nan_one_by_one_do_not_count_against_the_variant_while_others_are_committed() -> None:
    world, _ = run(128, range(5, 128, 20), named=True)
    assert set(world.failed) == {("c", number) for number in range(5, 128, 20)}


def test_engine_that_is_closing_when_it_gives_nan_does_not_count_against_the_variant() -> None:
    hand, worker, shard = start_engine(make_core(8, replace(POLICY, attempts=1)))
    hand(NodeDraining((worker,), "spot notice"))
    hand(WorkerLost(worker, Failure(FailureKind.NAN, "NaN while decoding")))
    hand(missing(shard, shard.numbers))
    assert not hand.failures()
    assert hand.core.state.contexts["c"].waiting_draws == 8
