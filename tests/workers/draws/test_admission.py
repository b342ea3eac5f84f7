"""The forecast of what draws will hold of the cache, against naive references: a step, a draw and an age at a time."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.draws.admission import Footprint, Forecast, Kind, Past, Survival
from workers.engines.engine import Capacity

KIND: Kind = ("context", "benchmark", False)
OTHER: Kind = ("context", "another benchmark", False)
LONGEST = 60
AGES = st.lists(st.integers(1, LONGEST), max_size=12)
FOOTPRINTS = st.builds(
    lambda kind, prompt, age, left, growth: Footprint(
        kind, prompt + growth * age, age, min(LONGEST, age + left), growth
    ),
    st.sampled_from([KIND, OTHER]),
    st.integers(1, 20),
    st.integers(0, LONGEST - 1),
    st.integers(1, LONGEST),
    st.integers(1, 3),
)

NEW = st.builds(Footprint, st.sampled_from([KIND, OTHER]), st.integers(1, 20), st.just(0), st.integers(1, LONGEST))


def fresh() -> Footprint:
    """A draw that is to begin."""
    return Footprint(KIND, 4, 0, LONGEST)


def lives_beyond(age: float, ended: Sequence[int], running: Sequence[int]) -> float:
    """Age by age: of those that reached it, the share that did not end at it."""
    share = 1.0
    for one in range(1, int(age) + 1):
        reached = sum(other >= one for other in (*ended, *running))
        share *= 1 - ended.count(one) / reached if reached else 1
    return share


def begin(forecast: Forecast) -> int:
    """How many draws may begin beside those of the forecast."""
    count = 0
    while count < 1000 and (forecast := forecast.plus(fresh())).fits:
        count += 1
    return count


def how_many_begin(capacity: Capacity, ended: Sequence[int] = (), running: Sequence[Footprint] = ()) -> int:
    return begin(Forecast.of(capacity, running, {KIND: Past(list(ended))}, LONGEST))


@given(AGES, AGES, st.lists(st.integers(0, LONGEST), min_size=1))
def test_survival_is_the_share_that_lives_on_of_those_that_reach_each_age(
    ended: list[int], running: list[int], ages: list[int]
) -> None:
    expected = [lives_beyond(age, ended, running) for age in ages]
    np.testing.assert_allclose(Survival(ended, running).beyond(np.array(ages)), expected, atol=1e-12)


def test_draws_that_still_run_speak_against_those_that_ended_early() -> None:
    """One of four draws has ended at age 3, so three quarters live longer, and not none."""
    assert Survival([3], [50, 50, 50]).beyond(np.array([3]))[0] == 0.75
    running = [Footprint(KIND, 54, 50, LONGEST)] * 3
    room = Capacity(99, 1000)
    assert how_many_begin(room, [3], running) < how_many_begin(room, [3, 3, 3, 3], running)


@given(AGES, st.lists(FOOTPRINTS, max_size=8), NEW, st.integers(1, 7), st.integers(1, 2000))
def test_what_fits_is_at_no_step_expected_to_exceed_the_cache(
    ended: list[int], running: list[Footprint], candidate: Footprint, block: int, tokens: int
) -> None:
    forecast = Forecast.of(Capacity(99, tokens, block), running, {KIND: Past(ended)}, LONGEST).plus(candidate)
    if not forecast.fits:
        return
    past = {KIND: ended, OTHER: []}
    now = {kind: [footprint.age for footprint in running if footprint.kind == kind] for kind in past}
    for step in range(LONGEST):
        expected = 0.0
        for footprint in (*running, candidate):
            if footprint.age + step < footprint.most and footprint.age + step <= LONGEST:
                known = past[footprint.kind], now[footprint.kind]
                lives = lives_beyond(footprint.age + step, *known) / max(1e-300, lives_beyond(footprint.age, *known))
                expected += lives * (footprint.held + footprint.growth * step)
        assert expected <= tokens + 1e-6


def test_before_the_first_end_every_draw_is_expected_to_reach_its_limit() -> None:
    assert how_many_begin(Capacity(99, 10 * (4 + LONGEST))) == 10
    assert how_many_begin(Capacity(99, 10 * (4 + LONGEST) - 1)) == 9


def test_blocks_are_taken_whole() -> None:
    assert how_many_begin(Capacity(99, 10 * 64, block_tokens=64)) == 10
    assert how_many_begin(Capacity(99, 10 * 65, block_tokens=65)) == 10
    assert how_many_begin(Capacity(99, 10 * 64, block_tokens=32)) == 10
    assert how_many_begin(Capacity(99, 10 * 64, block_tokens=50)) == 6


def test_draws_that_end_soon_make_room_for_those_that_still_grow() -> None:
    """Two draws at the end of their lives and room for two whole ones: a sum of final lengths would leave no place."""
    old = [Footprint(KIND, 4 + LONGEST - 5, LONGEST - 5, LONGEST)] * 2
    assert how_many_begin(Capacity(99, 2 * (4 + LONGEST) + 20), [], old) >= 1


@given(st.integers(1, 30), AGES)
def test_shorter_draws_leave_room_for_at_least_as_many(shorter: int, ended: list[int]) -> None:
    room = Capacity(99, 700)
    some = ended or [LONGEST]
    assert how_many_begin(room, [max(1, age - shorter) for age in some]) >= how_many_begin(room, some)


def test_draws_of_another_kind_say_nothing_about_this_one() -> None:
    room = Capacity(99, 700)
    other = Forecast.of(room, [], {OTHER: Past([1] * 50)}, LONGEST)
    assert begin(other) == how_many_begin(room) < how_many_begin(room, [1] * 50)


def test_traces_that_a_limit_cut_say_only_that_they_would_have_been_longer() -> None:
    """Half the draws end at age 3, and half were cut there: as if one half had ended there, of all that are to come."""
    room, few, many = Capacity(99, 700), Past([3] * 5, cut=[3] * 5), Past([3] * 10)
    assert Survival([3] * 5, [3] * 5).beyond(np.array([LONGEST]))[0] == 0.5
    assert begin(Forecast.of(room, [], {KIND: few}, LONGEST)) < begin(Forecast.of(room, [], {KIND: many}, LONGEST))


def test_room_is_kept_for_answers_at_the_end_of_a_life() -> None:
    """Two draws reach their limit together, where each has answers of ten tokens beside its own."""
    pair = [Footprint(KIND, 4, 0, LONGEST, answer_steps=5, answer_tokens=10)] * 2
    assert Forecast.of(Capacity(99, 2 * (4 + LONGEST + 10)), pair, {}, LONGEST).fits
    assert not Forecast.of(Capacity(99, 2 * (4 + LONGEST + 10) - 1), pair, {}, LONGEST).fits
