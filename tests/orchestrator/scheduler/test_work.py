"""Expected trace lengths: a question's own mean, else the larger of its default and what its group has shown."""

from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduler.work import LengthEstimator

GROUPS = ["short", "long", "short", "long", "short"]
DEFAULTS = [100.0, 900.0, 100.0, 900.0, 100.0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5_000)), max_size=30))
def test_expectation_by_its_definition(observed: list[tuple[int, int]]) -> None:
    lengths = LengthEstimator(GROUPS, DEFAULTS)
    for question, tokens in observed:
        lengths.observe(question, tokens)
    for question, expected in enumerate(lengths.expect()):
        own = [tokens for number, tokens in observed if number == question]
        group = [tokens for number, tokens in observed if GROUPS[number] == GROUPS[question]]
        by_group = max(DEFAULTS[question], mean(group) if group else 0.0)
        assert expected == pytest.approx(mean(own) if own else by_group)
    assert lengths.observed == len(observed)
