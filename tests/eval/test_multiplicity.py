"""Adjusted p-values: by hand, by definition, scipy, and their error rates under the null hypothesis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.coverage import false_alarms
from eval.multiplicity import benjamini_hochberg, holm


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjustments_against_definitions_and_scipy(p_values):
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.5):
        rejected, remaining = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        while remaining and p_values[remaining[0]] * len(remaining) <= level:
            rejected.add(remaining.pop(0))
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert all(low <= high for low, high in zip(p_values, adjusted, strict=True))


def test_false_alarms_of_a_null_grid_stay_below_nominal():
    rates = false_alarms(sweeps=200, questions=40, seeds=3)
    noise = 3 * (0.05 * 0.95 / 200) ** 0.5
    assert rates["holm"] <= 0.05 + noise
    assert rates["benjamini_hochberg"] <= 0.05 + noise
    assert rates["uncorrected"] > 0.3, "60 tests at 5 % must alarm, or the simulation proves nothing"
