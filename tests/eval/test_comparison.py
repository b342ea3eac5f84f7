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
    assert result.interval.low < 0 < result.interval.high


def test_missing_draws_bound_what_the_comparison_could_have_been():
    # The variant lacks the answers to four questions that dense got wrong: perhaps it got them wrong, too.
    planned = [(f"q{i}", 0) for i in range(12)]
    variant, dense = cell("11111111...."), cell("000000000000")
    result = compare(variant, dense, planned=planned)
    assert (result.pairs, result.unpaired, result.missing) == (8, 4, 4)
    assert (result.difference, result.lowest, result.highest) == (1.0, pytest.approx(8 / 12), 1.0)
    assert result.p_if_missing == pytest.approx(compare(cell("111111110000"), dense).p_permutation)
    assert result.note == "few differ; unequal missing data: 4 draws are graded on one side only"


def test_missing_draws_that_could_turn_the_sign_leave_no_evidence():
    result = compare(cell("111111??"), cell("000000.."), planned=[(f"q{i}", 0) for i in range(20)])
    assert result.p_permutation < 0.05
    assert (result.missing, result.lowest, result.highest) == (14, pytest.approx((6 - 14) / 20), 1.0)
    assert (result.p_if_missing, result.unpaired) == (1.0, 0)


def test_nothing_missing_bounds_nothing():
    result = compare(cell("1100110"), cell("1010001"))
    assert result.missing == 0
    assert result.lowest == result.highest == result.difference
    assert result.p_if_missing == result.p_permutation


@given(
    st.text("10.?", min_size=8, max_size=8),
    st.text("10.?", min_size=8, max_size=8),
    st.text("01", min_size=16, max_size=16),
)
def test_whatever_was_missing_the_difference_is_within_its_bounds(left, right, truth):
    planned = [(f"q{i}", 0) for i in range(8)]
    whole = [
        "".join(t if mark in ".?" else mark for mark, t in zip(side, fill, strict=True))
        for side, fill in ((left, truth[:8]), (right, truth[8:]))
    ]
    if not any(a in "01" and b in "01" for a, b in zip(left, right, strict=True)):
        return
    seen, full = compare(cell(left), cell(right), planned=planned), compare(cell(whole[0]), cell(whole[1]))
    assert seen.lowest - 1e-9 <= full.difference <= seen.highest + 1e-9


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


def test_means_over_a_curve_of_five_limits_are_tested_exactly():
    rng = np.random.default_rng(6)
    sums = rng.integers(-15, 16, size=10) / 5  # three seeds at five limits
    flips = np.array(list(product([-1, 1], repeat=10))) @ (sums / 3)
    expected = (np.abs(flips) >= abs((sums / 3).sum()) - 1e-9).mean()
    assert permutation_p(sums, np.full(10, 3.0)) == pytest.approx(expected, abs=1e-12)


def test_a_lattice_too_fine_for_convolution_is_sampled():
    counts = np.array([101.0, 103, 107, 109, 113, 97, 89, 83])
    sums = np.array([50.0, -20, 30, 60, -10, 5, 40, 20])
    flips = np.array(list(product([-1, 1], repeat=8))) @ (sums / counts)
    expected = (np.abs(flips) >= abs((sums / counts).sum()) - 1e-9).mean()
    assert permutation_p(sums, counts) == pytest.approx(expected, abs=0.005)


def test_curves_keep_the_points_of_a_question_together():
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


def test_missing_draws_bound_a_curves_mean():
    planned = [(f"q{i}", 0) for i in range(4)]
    result = compare_curves({8: cell("11.1"), 16: cell("1111")}, {8: cell("0000"), 16: cell("0000")}, planned=planned)
    assert (result.mean.missing, result.mean.unpaired) == (1, 1)
    assert (result.mean.lowest, result.mean.highest) == (pytest.approx(7 / 8), 1.0)


def test_curves_without_common_ground_are_refused():
    with pytest.raises(ValueError, match=r"share no token limit: \[8\] against \[16\]"):
        compare_curves({8: cell("1")}, {16: cell("1")})
    with pytest.raises(ValueError, match="no question has a pair at every limit"):
        compare_curves({8: cell("1."), 16: cell(".1")}, {8: cell("11"), 16: cell("11")})


def test_adjust_keeps_the_order_and_refuses_missing_tests():
    assert [row.p for row in adjust([0.2, 0.1])] == [0.2, 0.1]
    with pytest.raises(ValueError, match="Leave out comparisons that were not made"):
        adjust([0.2, float("nan")])
