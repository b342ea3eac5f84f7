"""Intervals against scipy, brute force, and their own coverage."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import accuracy_coverage, difference_coverage
from eval.intervals import (
    analytic_interval,
    bootstrap_interval,
    bootstrap_means,
    difference_interval,
    expanded_tail,
)

VALUES = np.array([0, 1 / 3, 1 / 3, 1, 2 / 3, 0, 1, 1, 1 / 3, 2 / 3])


def test_bootstrap_distribution_equals_resampling_questions():
    small = np.array([0.0, 0.5, 1.0])
    every = np.array([np.mean(pick) for pick in product(small, repeat=3)])
    drawn = bootstrap_means(small, 200_000, seed=3)
    for value in np.unique(every):
        assert np.isclose(drawn, value).mean() == pytest.approx(np.isclose(every, value).mean(), abs=0.005)


def test_bootstrap_interval_agrees_with_scipy_at_the_expanded_level():
    level = 1 - 2 * expanded_tail(len(VALUES), 0.95)
    theirs = stats.bootstrap(
        (VALUES,), np.mean, confidence_level=level, n_resamples=20_000, method="percentile", random_state=0
    ).confidence_interval
    ours = bootstrap_interval(VALUES, resamples=20_000)
    assert (ours.low, ours.high) == (
        pytest.approx(theirs.low, abs=0.03),
        pytest.approx(theirs.high, abs=0.03),
    )
    assert ours == bootstrap_interval(VALUES, resamples=20_000), "the same data give the same interval"


def test_analytic_interval_is_wilsons_for_one_seed_up_to_its_t_quantile():
    values = np.array([1.0] * 340 + [0.0] * 160)
    theirs = stats.binomtest(340, 500).proportion_ci(method="wilson")
    ours = analytic_interval(values)
    assert (ours.low, ours.high) == (
        pytest.approx(theirs.low, abs=2e-3),
        pytest.approx(theirs.high, abs=2e-3),
    )


def test_unanimous_questions_do_not_give_an_empty_interval():
    ours = analytic_interval(np.ones(30))
    assert ours.high == 1.0
    assert 0.8 < ours.low < 0.95
    tied = difference_interval(np.zeros(30))
    assert -0.15 < tied.low < 0 < tied.high < 0.15


def test_difference_interval_is_the_t_interval_for_many_questions():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=4000)
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    ours = difference_interval(values)
    assert (ours.low, ours.high) == (
        pytest.approx(theirs.low, abs=1e-3),
        pytest.approx(theirs.high, abs=1e-3),
    )


def test_seeds_are_not_evidence_of_their_own():
    once = np.array([1.0, 0.0] * 20)
    # Three seeds that always agree: the same per-question means, so the same interval as one seed.
    thrice = np.array([np.mean([value] * 3) for value in once])
    assert analytic_interval(thrice) == analytic_interval(once)


def test_one_question_says_nothing_and_none_is_refused():
    assert (analytic_interval(np.array([1.0])).low, analytic_interval(np.array([1.0])).high) == (0, 1)
    assert bootstrap_interval(np.array([0.5])).high == float("inf")
    assert difference_interval(np.array([0.5])).low == -1
    for interval in (analytic_interval, bootstrap_interval, difference_interval):
        with pytest.raises(ValueError, match="one value per question"):
            interval(np.array([]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_coverage_at_100_questions_is_within_two_points(seeds):
    cell = (2000, 100, seeds, 0.5)
    assert accuracy_coverage(*cell, analytic_interval) == pytest.approx(0.95, abs=0.02)
    assert accuracy_coverage(*cell, lambda values: bootstrap_interval(values, resamples=1000)) == pytest.approx(
        0.95, abs=0.02
    )
    assert difference_coverage(*cell, 0.1, lambda values: bootstrap_interval(values, resamples=1000)) == pytest.approx(
        0.95, abs=0.02
    )
