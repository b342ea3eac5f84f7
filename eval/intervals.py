"""Confidence intervals for a mean over questions.

The question is the unit: its seeds are averaged first, and never count as independent evidence (Miller 2024, "Adding
Error Bars to Evals", arXiv 2411.00640, section 2.2: clustered errors).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

FloatArray = NDArray[np.float64]
RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """A two-sided interval in the units of the data, with its nominal coverage."""

    low: float
    high: float
    level: float = 0.95


def analytic_interval(means: FloatArray, level: float = 0.95) -> Interval:
    """Wilson's interval for the mean of per-question means in [0, 1], at the effective number of trials.

    `means`: one value per question, shape [questions]. The effective number of trials is p(1-p) / SE², SE being the
    clustered standard error: how many independent trials would be equally precise (Korn & Graubard 1998, here with
    Wilson's score interval and the t quantile). For one seed it is the plain Wilson interval, up to n/(n-1). If all
    questions agree (p is 0 or 1), the questions themselves count as trials.

    Raises `ValueError` without at least one question.
    """
    count = _checked(means)
    center = float(means.mean())
    if count == 1:
        return Interval(0.0, 1.0, level)
    error_squared = float(means.var(ddof=1)) / count
    trials = center * (1 - center) / error_squared if error_squared > 0 else float(count)
    t = float(stdtrit(count - 1, (1 + level) / 2))
    shrunk = (center + t * t / (2 * trials)) / (1 + t * t / trials)
    spread = center * (1 - center) / trials + t * t / (4 * trials * trials)
    half = t * float(np.sqrt(max(spread, 0.0))) / (1 + t * t / trials)
    return Interval(max(0.0, shrunk - half), min(1.0, shrunk + half), level)


def bootstrap_interval(values: FloatArray, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The percentile bootstrap over questions, with the small-sample expansion of Hesterberg (2015, section 5.3.2).

    `values`: one value per question, shape [questions], of any range. The plain percentile interval is too narrow by
    sqrt((n-1)/n), and by normal instead of t tails; the expansion corrects its tail probabilities for both. With one
    question the interval is infinite. Raises `ValueError` without any.
    """
    count = _checked(values)
    if count == 1:
        return Interval(float("-inf"), float("inf"), level)
    means = bootstrap_means(values, resamples, seed)
    tail = expanded_tail(count, level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high), level)


def expanded_tail(count: int, level: float) -> float:
    """The tail probability at which to read a bootstrap distribution of `count` questions, for coverage `level`."""
    t = stdtrit(count - 1, (1 - level) / 2)
    return float(ndtr(t * np.sqrt(count / (count - 1))))


def bootstrap_means(values: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Means of `resamples` resamples of `values` with replacement, shape [resamples].

    Per-question means take few distinct values, so the counts of those values are sampled directly: the same
    distribution as resampling questions, at a cost that does not grow with their number.
    """
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), counts / len(values), size=resamples)
    return np.asarray(drawn @ distinct / len(values), dtype=np.float64)


def _checked(values: FloatArray) -> int:
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"an interval needs one value per question; got an array of shape {values.shape}.")
    return len(values)


def difference_interval(differences: FloatArray, seeds: int = 1, level: float = 0.95) -> Interval:
    """Analytic interval for the mean of per-question differences in [-1, 1], valid even if few questions differ.

    `differences`: shape [questions]. It is the t interval after adding two pseudo-questions, one a tie and one half a
    win and half a loss. Agresti & Min (2005) add the same to the four cells of a paired table, and for one seed this is
    theirs. With `seeds` draws per question, the win and loss have the variance of a mean of that many.
    """
    count = _checked(differences)
    if count == 1:
        return Interval(-1.0, 1.0, level)
    weight = count + 2.0
    mean = float(differences.sum()) / weight
    variance = (float((differences**2).sum()) + 1.0 / seeds) / weight - mean * mean
    half = float(stdtrit(count - 1, (1 + level) / 2)) * float(np.sqrt(variance / weight))
    return Interval(max(-1.0, mean - half), min(1.0, mean + half), level)
