"""Layer statistics + target -> a sparsity per unit. Pure, no torch.

A unit is whatever gets one sparsity: a block, or the attention or MLP part of a block. The mean of the
sparsities, weighted by the units' parameter counts, is the target to 1e-6, and each lies in [0, maximum]. Where
a formula leaves that range, `waterfill` solves again for the formula's own free constant (OWL's shift, the
others' scale) with the bounds in force; `clamp` cuts off, as the upstream repositories do, and so may miss the
target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Direction = Literal["protect-high", "prune-high"]
_EQUAL: Final = 1e-12
"""Relative spread below which statistics count as equal: min-max scaling would rank rounding noise."""


@dataclass(frozen=True)
class Bounds:
    """The range of a sparsity. `floor` replaces a sparsity <= 0 when clamping; OWL's code with wanda takes .01."""

    policy: Literal["waterfill", "clamp"] = "waterfill"
    maximum: float = 0.99
    floor: float = 0.0


def uniform(units: int, target: float) -> list[float]:
    """The target for each unit."""
    return [target] * units


def owl(
    outliers: Sequence[float], sizes: Sequence[int], target: float, *, spread: float, bounds: Bounds
) -> list[float]:
    """OWL (Yin et al., arXiv 2310.05175, section 3.2; luuyin/OWL lib/prune_all.py): outliers protect a block.

    `outliers` is the layerwise outlier distribution D_l (on any scale), `spread` the paper's lambda: the most and
    the least pruned block differ by 2 * lambda. The mean is weighted by `sizes`, so unequal blocks meet the
    target, too; upstream's mean is plain.
    """
    values = _checked(outliers, sizes, target, bounds)
    if _all_equal(values):
        return uniform(len(values), target)
    weights = np.asarray(sizes, dtype=float)
    raised = _unit_range(values) * 2 * spread
    return _within(target - (raised - np.average(raised, weights=weights)), weights, target, bounds, np.add)


def proportional(ratios: Sequence[float], sizes: Sequence[int], target: float, *, bounds: Bounds) -> list[float]:
    """Sparsities in proportion to `ratios` (>= 0): eta * ratio_l with the eta that meets the target.

    The mapping of AlphaPruning (ww_sparsity) and of both LayerIF variants.
    """
    values = _checked(ratios, sizes, target, bounds)
    weights = np.asarray(sizes, dtype=float)
    if _all_equal(values):
        return uniform(len(values), target)
    if values.min() < 0:
        raise ValueError(f"ratios must not be negative, found {values.min()}; shift them.")
    eta = target * weights.sum() / (values * weights).sum()
    return _within(eta * values, weights, target, bounds, np.multiply)


def linear_ratios(scores: Sequence[float], *, epsilon: float, direction: Direction = "prune-high") -> list[float]:
    """Scores min-max scaled to [1 - epsilon, 1 + epsilon].

    AlphaPruning (Lu et al., arXiv 2410.10912, equation 3) and the released LayerIF code, both of which prune
    high scores most.
    """
    return [1 - epsilon + 2 * epsilon * rank for rank in _ranked(scores, direction)]


def part_ratios(
    scores: Sequence[float], *, low: float, high: float, window: int, degree: int, direction: Direction
) -> list[float]:
    """LayerIF as in arXiv 2604.25098's code, for one part over all layers: scores -> ratios in [low, high].

    Min-max of |score|, Savitzky-Golay smoothing, clip, min-max again.
    """
    smooth = smoothed(_unit_range_or_half(np.abs(np.asarray(scores, dtype=float))), window=window, degree=degree)
    return [low + (high - low) * rank for rank in _ranked(np.clip(smooth, 0, 1), direction)]


def smoothed(scores: Sequence[float] | np.ndarray, *, window: int, degree: int) -> np.ndarray:
    """Savitzky-Golay filter with interpolated ends (scipy's default); window 0, or wider than the scores, is none."""
    values = np.asarray(scores, dtype=float)
    if window == 0 or window > len(values):
        return values
    from scipy.signal import savgol_filter  # a plan reads the table of allocators and must not wait for scipy

    return np.asarray(savgol_filter(values, window, degree))


def _checked(values: Sequence[float], sizes: Sequence[int], target: float, bounds: Bounds) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if len(array) != len(sizes) or len(array) == 0 or min(sizes) <= 0:
        raise ValueError(f"{len(array)} layer statistics for {len(sizes)} layers of positive size; give one each.")
    if not np.isfinite(array).all():
        raise ValueError(f"layer statistic {int(np.argmin(np.isfinite(array)))} is not finite; check the activations.")
    if not 0 <= target <= bounds.maximum:
        raise ValueError(f"sparsity {target} exceeds the per-layer maximum {bounds.maximum}; raise max_sparsity.")
    return array


def _all_equal(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= _EQUAL * np.abs(values).max())


def _unit_range(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / np.ptp(values)


def _unit_range_or_half(values: np.ndarray) -> np.ndarray:
    return np.full(len(values), 0.5) if _all_equal(values) else _unit_range(values)


def _ranked(scores: Sequence[float] | np.ndarray, direction: Direction) -> np.ndarray:
    """0 for the least pruned unit, 1 for the most; one half for all when the scores are equal."""
    rank = _unit_range_or_half(np.asarray(scores, dtype=float))
    return rank if direction == "prune-high" else 1 - rank


def _within(
    formula: np.ndarray,
    weights: np.ndarray,
    target: float,
    bounds: Bounds,
    shifted: Callable[[np.ndarray, float], np.ndarray],
) -> list[float]:
    """`formula` brought inside the bounds, where `shifted(formula, c)` does not decrease in c."""
    if bounds.policy == "clamp":
        floored = np.where(formula <= 0, bounds.floor, formula)
        return [float(value) for value in np.clip(floored, 0, bounds.maximum)]
    if formula.min() >= 0 and formula.max() <= bounds.maximum:
        return [float(value) for value in formula]

    def at(constant: float) -> np.ndarray:
        return np.clip(shifted(formula, constant), 0, bounds.maximum)

    low, high = (-2.0, 2.0) if shifted is np.add else (0.0, 1.0)
    while shifted is np.multiply and np.average(at(high), weights=weights) < target:
        if (shifted(formula, high)[formula > 0] >= bounds.maximum).all():
            raise ValueError(
                f"sparsity {target} is out of reach: the other layers' ratio is 0; raise the lowest ratio."
            )
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.average(at(middle), weights=weights) < target else (low, middle)
    return [float(value) for value in at(high)]
