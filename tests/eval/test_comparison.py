"""Paired comparisons: hand-worked tables, scipy, and brute force over all sign flips."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from eval.comparison import adjust, compare, compare_curves, mcnemar_exact, permutation_p
from eval.grading import Grade
from eval.metrics import Outcome


def cell(text: str, seed: int = 0) -> list[Outcome]:
    """One question per character: 1 right, 0 wrong, . absent, ? grader failed."""
    grades = {
        "1": Grade("CORRECT", "1"),
        "0": Grade("INCORRECT", "2"),
        "?": Grade("UNPARSED", None, "crash: x"),
    }
    return [Outcome(f"q{i}", seed, grades[mark]) for i, mark in enumerate(text) if mark != "."]


def test_hand_worked_pair():
    result = compare(cell("1100110."), cell("1010001?"))
    # paired: q0..q6; improved q1, q4, q5; worsened q2, q6
    assert (result.questions, result.pairs, result.unpaired) == (7, 7, 0)
    assert (result.improved, result.worsened) == (3, 2)
    assert result.difference == pytest.approx(1 / 7)
    assert result.p_mcnemar == pytest.approx(stats.binomtest(3, 5).pvalue)
    assert result.p_permutation == pytest.approx(1.0)


def test_seeds_of_a_question_are_averaged_and_only_pairs_count():
    variant = cell("11", 1) + cell("10", 2)
    dense = cell("01", 1) + cell("0.", 2)
    result = compare(variant, dense)
    assert (result.questions, result.pairs, result.unpaired) == (2, 3, 1)
    assert result.difference == pytest.approx((1.0 + 0.0) / 2)


def test_nothing_in_common_is_refused():
    with pytest.raises(ValueError, match="share no graded"):
        compare(cell("1", 1), cell("1", 2))


def test_identical_variants_differ_in_nothing():
    result = compare(cell("1010"), cell("1010"))
    assert (result.difference, result.p_mcnemar, result.p_permutation) == (0.0, 1.0, 1.0)
    assert result.analytic.low < 0 < result.analytic.high


@pytest.mark.parametrize(("improved", "worsened"), [(0, 0), (0, 5), (9, 1), (12, 12), (3, 20)])
def test_mcnemar_against_scipy(improved, worsened):
    expected = stats.binomtest(improved, improved + worsened).pvalue if improved + worsened else 1.0
    assert mcnemar_exact(improved, worsened) == pytest.approx(expected)


PAIRS = st.lists(st.integers(1, 4).flatmap(lambda n: st.tuples(st.integers(-n, n), st.just(n))), min_size=1, max_size=9)


@given(PAIRS)
def test_permutation_test_equals_all_sign_flips(pairs):
    sums = np.array([total for total, _ in pairs], dtype=float)
    counts = np.array([count for _, count in pairs], dtype=float)
    differences = sums / counts
    flips = np.array(list(product([-1, 1], repeat=len(pairs)))) @ differences
    expected = (np.abs(flips) >= abs(differences.sum()) - 1e-9).mean()
    assert permutation_p(sums, counts) == pytest.approx(expected)


def test_permutation_test_against_scipy():
    rng = np.random.default_rng(5)
    sums = rng.integers(-3, 4, size=12).astype(float)
    theirs = stats.permutation_test((sums / 3,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert permutation_p(sums, np.full(12, 3.0)) == pytest.approx(theirs)


def test_a_lattice_too_fine_for_convolution_is_sampled():
    counts = np.array([101.0, 103, 107, 109, 113, 97, 89, 83])
    sums = np.array([50.0, -20, 30, 60, -10, 5, 40, 20])
    flips = np.array(list(product([-1, 1], repeat=8))) @ (sums / counts)
    expected = (np.abs(flips) >= abs((sums / counts).sum()) - 1e-9).mean()
    assert permutation_p(sums, counts) == pytest.approx(expected, abs=0.005)


def test_curves_are_resampled_by_question():
    rng = np.random.default_rng(1)
    base = {limit: cell("".join(rng.choice(["0", "1"], size=60))) for limit in (8, 16, 32)}
    same = compare_curves(base, base)
    assert same.differences == (0.0, 0.0, 0.0)
    better = {
        limit: [Outcome(o.problem_id, o.seed, Grade("CORRECT", "1")) for o in cells] for limit, cells in base.items()
    }
    result = compare_curves(better, base)
    assert result.limits == (8, 16, 32)
    assert result.mean.difference == pytest.approx(np.mean(result.differences))
    assert all(band.low > 0 for band in result.band)
    for limit, band in zip(result.limits, result.band, strict=True):
        single = compare(better[limit], base[limit])
        assert band.low < single.interval.low < single.interval.high < band.high


def test_points_that_move_together_need_no_wider_band_than_one():
    marks, other = "1100110111010010", "1010001010110010"
    one = compare_curves({8: cell(marks)}, {8: cell(other)})
    many = compare_curves({k: cell(marks) for k in (8, 16, 32)}, {k: cell(other) for k in (8, 16, 32)})
    assert many.band[0].low == pytest.approx(one.band[0].low)
    assert many.band[0].high == pytest.approx(one.band[0].high)


def test_curves_without_common_ground_are_refused():
    with pytest.raises(ValueError, match=r"share no token limit: \[8\] against \[16\]"):
        compare_curves({8: cell("1")}, {16: cell("1")})
    with pytest.raises(ValueError, match="no question has a pair at every limit"):
        compare_curves({8: cell("1."), 16: cell(".1")}, {8: cell("11"), 16: cell("11")})


def test_adjust_keeps_the_order_and_refuses_missing_tests():
    assert [row.p for row in adjust([0.2, 0.1])] == [0.2, 0.1]
    with pytest.raises(ValueError, match="Leave out comparisons that were not made"):
        adjust([0.2, float("nan")])
