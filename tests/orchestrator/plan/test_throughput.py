"""The rate of an engine, measured on the times of its rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.throughput import BREAK_SECONDS, measure


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
