"""Allocators as properties: the target is met, the range kept, ranks preserved, degenerate statistics uniform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.allocators.formulas import Bounds, linear_ratios, owl, part_ratios, proportional, smoothed, uniform

finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


@st.composite
def layers(draw):
    count = draw(st.integers(1, 40))
    scores = draw(st.lists(finite, min_size=count, max_size=count))
    sizes = draw(st.lists(st.integers(1, 10**8), min_size=count, max_size=count))
    return scores, sizes, draw(st.floats(0, 0.9))


def mean(values, sizes):
    return float(np.average(values, weights=np.asarray(sizes, dtype=float)))


@given(layers(), st.floats(0, 1))
def test_owl_meets_the_target_inside_the_range_and_spares_outliers(case, spread):
    outliers, sizes, target = case
    values = owl(outliers, sizes, target, spread=spread, bounds=Bounds())
    assert mean(values, sizes) == pytest.approx(target, abs=1e-6)
    assert min(values) >= 0
    assert max(values) <= 0.99
    order = np.argsort(outliers)
    assert all(a >= b - 1e-9 for a, b in zip(np.array(values)[order], np.array(values)[order][1:], strict=False))


@given(layers(), st.floats(0.01, 0.9), st.sampled_from(["protect-high", "prune-high"]))
def test_linear_ratios_meet_the_target_in_the_direction_asked(case, epsilon, direction):
    scores, sizes, target = case
    ratios = linear_ratios(scores, epsilon=epsilon, direction=direction)
    values = proportional(ratios, sizes, target, bounds=Bounds())
    assert mean(values, sizes) == pytest.approx(target, abs=1e-6)
    assert min(values) >= 0
    assert max(values) <= 0.99
    slope = (np.argmax(scores), np.argmin(scores))
    high, low = values[slope[0]], values[slope[1]]
    assert high >= low - 1e-9 if direction == "prune-high" else high <= low + 1e-9


@given(layers(), st.sampled_from(["protect-high", "prune-high"]))
def test_part_ratios_meet_the_target(case, direction):
    scores, sizes, target = case
    ratios = part_ratios(scores, low=0.05, high=0.4, window=5, degree=2, direction=direction)
    assert all(0.05 - 1e-9 <= ratio <= 0.4 + 1e-9 for ratio in ratios)
    values = proportional(ratios, sizes, target, bounds=Bounds())
    assert mean(values, sizes) == pytest.approx(target, abs=1e-6)
    assert min(values) >= 0
    assert max(values) <= 0.99


@given(st.integers(1, 30), finite, st.floats(0, 0.9))
def test_equal_statistics_give_uniform(count, value, target):
    sizes = list(range(1, count + 1))
    expected = uniform(count, target)
    assert owl([value] * count, sizes, target, spread=0.08, bounds=Bounds()) == expected
    ratios = linear_ratios([value] * count, epsilon=0.3)
    assert proportional(ratios, sizes, target, bounds=Bounds()) == pytest.approx(expected)
    parts = part_ratios([value] * count, low=0.05, high=0.4, window=5, degree=2, direction="protect-high")
    assert proportional(parts, sizes, target, bounds=Bounds()) == pytest.approx(expected)


def test_owl_equals_the_published_formula_on_equal_blocks():
    outliers = [3.0, 1.0, 0.5, 2.0]
    values = owl(outliers, [10] * 4, 0.5, spread=0.08, bounds=Bounds())
    scaled = (np.array(outliers) - 0.5) / 2.5 * 0.16
    np.testing.assert_allclose(values, 1 - (scaled - scaled.mean() + 0.5))
    assert max(values) - min(values) == pytest.approx(0.16)


def test_clamping_is_upstreams_and_may_miss_the_target_where_waterfilling_does_not():
    outliers, sizes = [100.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1] * 6
    wanda = owl(outliers, sizes, 0.1, spread=0.08, bounds=Bounds("clamp", 1.0, floor=0.01))
    magnitude = owl(outliers, sizes, 0.1, spread=0.08, bounds=Bounds("clamp", 1.0))
    filled = owl(outliers, sizes, 0.1, spread=0.08, bounds=Bounds())
    assert (wanda[0], magnitude[0], filled[0]) == (0.01, 0.0, 0.0)
    assert mean(wanda, sizes) > 0.1 + 1e-3
    assert mean(filled, sizes) == pytest.approx(0.1, abs=1e-9)


def test_proportional_clamps_at_the_maximum_or_refills():
    ratios, sizes = [1.0, 0.1, 0.1], [1, 1, 1]
    assert max(proportional(ratios, sizes, 0.6, bounds=Bounds("clamp"))) == 0.99
    assert mean(proportional(ratios, sizes, 0.6, bounds=Bounds("clamp")), sizes) < 0.55
    filled = proportional(ratios, sizes, 0.6, bounds=Bounds())
    assert mean(filled, sizes) == pytest.approx(0.6)
    assert filled[1] == pytest.approx(filled[2])


def test_part_ratios_follow_the_papers_steps():
    """methods.md section 4.2, steps 2-4, written out with scipy."""
    from scipy.signal import savgol_filter

    scores = np.array([5.0, 1.0, 0.0, 2.0, 8.0, 4.0, 3.0])
    scaled = scores / 8
    smooth = np.clip(savgol_filter(scaled, 5, 2), 0, 1)
    again = (smooth - smooth.min()) / (smooth.max() - smooth.min() + 1e-8)
    expected = (1 - again) * 0.35 + 0.05
    got = part_ratios(scores.tolist(), low=0.05, high=0.4, window=5, degree=2, direction="protect-high")
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_smoothing_reproduces_a_quadratic_and_leaves_short_series_alone():
    curve = [float(i * i) for i in range(9)]
    np.testing.assert_allclose(smoothed(curve, window=7, degree=3), curve, atol=1e-9)
    assert smoothed([1.0, 5.0, 2.0], window=5, degree=2).tolist() == [1.0, 5.0, 2.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: owl([1.0, float("nan")], [1, 1], 0.2, spread=0.1, bounds=Bounds()), "statistic 1 is not finite"),
        (lambda: owl([1.0], [1, 1], 0.2, spread=0.1, bounds=Bounds()), "give one each"),
        (lambda: owl([1.0, 2.0], [1, 1], 0.5, spread=0.1, bounds=Bounds(maximum=0.4)), "raise max_sparsity"),
        (lambda: proportional([1.0, 0.0], [1, 1], 0.6, bounds=Bounds()), "out of reach"),
        (lambda: proportional([1.0, -1.0], [1, 1], 0.2, bounds=Bounds()), "must not be negative"),
    ],
)
def test_impossible_allocations_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
