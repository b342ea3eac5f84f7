"""Intervals against scipy, by hand, at their edges, and their own coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.coverage import accuracy_row, band_row, difference_row
from eval.intervals import accuracy_interval, difference_band, difference_interval


def ones(values: np.ndarray) -> np.ndarray:
    """One draw per question."""
    return np.ones(len(values))


def test_accuracy_interval_is_wilsons_for_one_seed_up_to_its_t_quantile():
    values = np.array([1.0] * 340 + [0.0] * 160)
    theirs = stats.binomtest(340, 500).proportion_ci(method="wilson")
    ours = accuracy_interval(values, ones(values))
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-3), pytest.approx(theirs.high, abs=1e-3))


def test_difference_interval_is_the_t_interval_for_many_questions():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=4000)
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    ours = difference_interval(values, ones(values))
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-3), pytest.approx(theirs.high, abs=1e-3))


def test_skewed_differences_get_an_interval_that_reaches_further_to_their_side():
    lost = np.array([-1.0] * 6 + [0.0] * 94)
    ours = difference_interval(lost, ones(lost))
    assert -0.06 - ours.low > 1.3 * (ours.high + 0.06)
    won = difference_interval(-lost, ones(lost))
    assert (won.low, won.high) == (pytest.approx(-ours.high), pytest.approx(-ours.low)), "the mirror image"


UNANIMOUS = {"all wrong": 0.0, "all right": 1.0}


@pytest.mark.parametrize("case", UNANIMOUS)
def test_unanimous_questions_have_an_interval_with_a_width(case):
    values = np.full(20, UNANIMOUS[case])
    ours = accuracy_interval(values, np.full(20, 3.0))
    assert ours.low <= UNANIMOUS[case] <= ours.high
    assert 0.05 < ours.high - ours.low < 0.2
    assert ours.note == ("few right" if case == "all wrong" else "few wrong")


def test_variants_that_differ_nowhere_have_an_interval_with_a_width():
    tied = difference_interval(np.zeros(30), np.ones(30))
    assert -0.1 < tied.low < 0 < tied.high < 0.1
    assert tied.note == "few differ"
    (first, second) = difference_band(np.zeros((30, 2)), np.ones(30))
    assert first == second == tied, "limits that agree in everything are one"


def test_one_question_says_nothing_and_none_is_refused():
    whole = accuracy_interval(np.array([1.0]), np.ones(1))
    assert (whole.low, whole.high, whole.note) == (0, 1, "one question")
    assert (
        difference_interval(np.array([0.5]), np.ones(1)).low,
        difference_band(np.ones((1, 2)), np.ones(1))[1].high,
    ) == (
        -1,
        1,
    )
    for interval in (accuracy_interval, difference_interval):
        with pytest.raises(ValueError, match="one value per question"):
            interval(np.array([]), np.array([]))


def test_seeds_that_always_agree_are_hardly_evidence_of_their_own():
    values = np.array([1.0, 0.0] * 100)
    once, thrice = accuracy_interval(values, ones(values)), accuracy_interval(values, np.full(200, 3.0))
    assert thrice.low == pytest.approx(once.low, abs=1e-3)
    assert thrice.high == pytest.approx(once.high, abs=1e-3)


def test_note_needs_ten_questions_of_either_kind():
    for right, note in ((9, "few right"), (10, ""), (20, ""), (21, "few wrong")):
        values = np.array([1.0] * right + [0.0] * (30 - right))
        assert accuracy_interval(values, ones(values)).note == note
        assert difference_interval(values, ones(values)).note == ("few differ" if note else "")
    assert accuracy_interval(np.array([1.0] * 4 + [0.0] * 4), np.ones(8)).note == "few right, few wrong"


QUESTIONS = st.integers(2, 40).flatmap(lambda n: st.lists(st.integers(-3, 3), min_size=n, max_size=n))


@given(QUESTIONS)
def test_intervals_hold_their_mean_have_a_width_and_stay_in_range(sums):
    differences = np.array(sums) / 3
    draws = np.full(len(sums), 3.0)
    means = np.abs(differences)
    for interval, mean, least in (
        (difference_interval(differences, draws), differences.mean(), -1),
        (accuracy_interval(means, draws), means.mean(), 0),
    ):
        assert least <= interval.low <= mean + 1e-12
        assert mean - 1e-12 <= interval.high <= 1
        assert 0 < interval.high - interval.low < 2.1
    (single,), (one, _, _) = (difference_band(differences[:, None], draws), difference_band(_three(differences), draws))
    assert one.low <= single.low + 1e-9, "a band is no narrower than the interval of one of its points"
    assert one.high >= single.high - 1e-9


def _three(differences: np.ndarray) -> np.ndarray:
    return np.stack([differences, np.roll(differences, 1), -differences], axis=1)


@pytest.mark.parametrize("seeds", [1, 3, 16])
@pytest.mark.parametrize("accuracy", [0.03, 0.5, 0.97])
def test_coverage_at_30_questions_is_nominal_or_noted(seeds, accuracy):
    for row in (accuracy_row(3000, 30, seeds, accuracy), difference_row(3000, 30, seeds, accuracy, 0.9)):
        noise = 3 * (0.05 * 0.95 / 3000) ** 0.5
        assert row["coverage"] > 0.93 - noise
        assert row["coverage"] < 0.97 + noise or row["noted"] > 0.5


def test_band_covers_the_whole_curve():
    assert band_row(400, 30, 3, 0.5, 0.9)["coverage"] == pytest.approx(0.95, abs=0.035)
