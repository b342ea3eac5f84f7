"""Adjusted p-values for many tests. A test is significant at level α if its adjusted p-value is at most α."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the given order.

    It controls the chance of *any* false positive under every dependence between tests, so it is valid for points of
    one curve, which share traces. Raises `ValueError` for a p-value that is not in [0, 1].
    """
    p, order = _ordered(p_values)
    count = len(p)
    stepped = np.maximum.accumulate(p[order] * (count - np.arange(count)))
    return _restored(stepped, order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg's step-up adjustment (1995), in the given order.

    It controls the expected *share* of false positives among the findings, for independent or positively dependent
    tests; points of one curve depend positively. Raises `ValueError` for a p-value that is not in [0, 1].
    """
    p, order = _ordered(p_values)
    count = len(p)
    scaled = p[order] * count / np.arange(1, count + 1)
    stepped = np.minimum.accumulate(scaled[::-1])[::-1]
    return _restored(stepped, order)


def _ordered(p_values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p_values, dtype=np.float64)
    if np.isnan(p).any() or (p < 0).any() or (p > 1).any():
        raise ValueError(
            f"p-values must lie in [0, 1]; got {list(p_values)}. Leave out comparisons that were not made."
        )
    return p, np.argsort(p, kind="stable")


def _restored(stepped: np.ndarray, order: np.ndarray) -> list[float]:
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
