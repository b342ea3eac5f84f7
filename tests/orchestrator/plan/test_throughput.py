"""The rate of an engine, measured on the times of its rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.throughput import BREAK_SECONDS, measure, of_engines


@given(
    warm_up=st.integers(1, 20),
    runs=st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 100.0)), min_size=1, max_size=4),
    length=st.integers(1, 10_000),
)
def test_rate_of_a_steady_engine_does_not_depend_on_its_breaks(
    warm_up: int, runs: list[tuple[int, float]], length: int
) -> None:
    rows, moment, counted, seconds = [], 0.0, 0, 0.0
    for count, step in runs:
        rows += [(moment + n * step, length) for n in range(count)]
        moment += count * step + 2 * BREAK_SECONDS
        if count >= 2 * warm_up:
            counted, seconds = counted + count - warm_up, seconds + (count - warm_up) * step
    measured = measure(reversed(rows), warm_up)
    assert (measured.draws, measured.tokens) == (counted, counted * length)
    assert measured.seconds == pytest.approx(seconds, rel=1e-6)
    assert (measured.rate is None) == (counted == 0)


def test_draws_that_were_in_flight_at_the_first_commit_do_not_make_an_engine_look_faster() -> None:
    """Two waves of 4 draws of 100 tokens, made side by side in 50 s each: 8 tokens a second."""
    waves = [(50.0 + n / 100, 100) for n in range(4)] + [(100.0 + n / 100, 100) for n in range(4)]
    rate = measure(waves, warm_up=4).rate
    assert rate == pytest.approx(8.0, rel=0.01)


def test_few_draws_give_a_rate_that_says_so() -> None:
    rows = [(float(second), 10) for second in range(20)]
    rough = of_engines([rows], 128)
    assert (rough.rate, rough.rough, rough.draws) == (10.0, True, 15)
    exact = of_engines([rows], 8)
    assert (exact.rate, exact.rough) == (10.0, False)
    assert of_engines([rows[:7]], 128).rate is None
    assert of_engines([], 128).rate is None
