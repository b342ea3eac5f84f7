"""Confidence intervals for a mean over questions, chosen by simulation (`python -m benchmarks.coverage`).

The question is the unit: its seeds are averaged first, and never count as independent evidence (Miller 2024, "Adding
Error Bars to Evals", arXiv 2411.00640, section 2.2: clustered errors). What the data cannot say with few questions that
differ, a few pseudo-observations say instead; so no interval is empty, and none is infinite.

Functions ending in `_limits` take arrays of shape [..., questions], so that a simulation can call them for all its
sweeps at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
FEW = 10
"""With fewer informative questions than this, an interval carries a note: its coverage may be off its level."""
PRIOR_SHARE = 0.6
"""Of the variance of an answer, the part that lies between questions, before anything is known of it."""
PRIOR_QUESTIONS = 3.0
"""How many informative questions that prior is worth."""
BAND_DRAWS = 20_000
"""Simulated curves from which the width of a band is read."""


@dataclass(frozen=True)
class Interval:
    """A two-sided interval in the units of the data, with its nominal coverage."""

    low: float
    high: float
    level: float = 0.95
    note: str = ""
    """Why its coverage may be off `level`, such as "few right"; see `FEW`. Empty where it was measured to hold."""


def accuracy_interval(means: FloatArray, draws: FloatArray, level: float = 0.95) -> Interval:
    """Wilson's interval for the mean of per-question means in [0, 1], at the effective number of trials.

    `means`, `draws`: a question's mean and the number of draws behind it, each of shape [questions]. See
    `accuracy_limits`. One question gives [0, 1]. Raises `ValueError` without any.
    """
    count = _checked(means)
    if count == 1:
        return Interval(0.0, 1.0, level, "one question")
    low, high = accuracy_limits(means, draws, level)
    few = [name for name, informative in (("right", means > 0), ("wrong", means < 1)) if informative.sum() < FEW]
    return Interval(float(low), float(high), level, ", ".join(f"few {name}" for name in few))


def accuracy_limits(means: FloatArray, draws: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Low and high, shape [...], from per-question `means` and `draws`, shape [..., questions], at least 2 questions.

    The effective number of trials is questions / V (Korn & Graubard 1998): V, the variance of a question's mean over
    p(1-p), is 1 for one draw, and for many draws the share of the variance that lies between questions. Few questions
    that are neither all wrong nor all right say little of V, so it is shrunk towards `PRIOR_SHARE`.
    """
    count = means.shape[-1]
    center = means.mean(axis=-1)
    binomial = center * (1 - center)
    within = (1 / draws).mean(axis=-1)
    ratio = np.divide(means.var(axis=-1, ddof=1), binomial, out=np.ones_like(center), where=binomial > 0)
    informative = np.minimum((means > 0).sum(axis=-1), (means < 1).sum(axis=-1))
    prior = PRIOR_SHARE + (1 - PRIOR_SHARE) * within
    measured = np.clip(ratio, within, 1)
    inflation = (informative * measured + PRIOR_QUESTIONS * prior) / (informative + PRIOR_QUESTIONS)
    trials = count / inflation
    t = stdtrit(count - 1, (1 + level) / 2)
    middle = (center + t * t / (2 * trials)) / (1 + t * t / trials)
    half = t * np.sqrt(binomial / trials + t * t / (4 * trials * trials)) / (1 + t * t / trials)
    return np.clip(middle - half, 0.0, center), np.clip(middle + half, center, 1.0)


def difference_interval(differences: FloatArray, draws: FloatArray, level: float = 0.95) -> Interval:
    """Skewness-corrected t interval for the mean of per-question differences in [-1, 1]; see `difference_limits`.

    `differences`, `draws`: a question's difference and the number of pairs behind it, each of shape [questions]. One
    question gives [-1, 1]. Raises `ValueError` without any.
    """
    return difference_band(differences[:, None] if differences.ndim == 1 else differences, draws, level)[0]


def difference_band(matrix: FloatArray, draws: FloatArray, level: float = 0.95) -> tuple[Interval, ...]:
    """Intervals for the column means of `matrix`, shape [questions, limits], that hold all at once at `level`.

    `draws`, shape [questions]: the fewest pairs behind any of a question's differences. One column gets
    `difference_interval`'s; several get its wider form with the quantile of the largest of them (sup-t, Montiel Olea &
    Plagborg-Møller 2019). Raises `ValueError` without a question.
    """
    count = _checked(matrix, 2)
    if count == 1:
        return tuple(Interval(-1.0, 1.0, level, "one question") for _ in range(matrix.shape[1]))
    low, high = difference_limits(matrix.T, draws, difference_quantile(matrix, draws, level))
    notes = ["few differ" if count - most_alike(column) < FEW else "" for column in matrix.T]
    return tuple(Interval(float(a), float(b), level, note) for a, b, note in zip(low, high, notes, strict=True))


def difference_limits(
    differences: FloatArray, draws: FloatArray, quantile: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Low and high, shape [...], from per-question `differences` in [-1, 1] and `draws`, shape [..., questions].

    Hall's (1992) transformation removes the skewness that a loss of few or of most right answers has. The variance has
    one pseudo-question more, half a win and half a loss of a single draw, as in Agresti & Min (2005); it is what is
    left where no question differs. `quantile`: of t, from `difference_quantile`.
    """
    count = differences.shape[-1]
    center = differences.mean(axis=-1)
    variance = ((differences**2).sum(axis=-1) + (1 / draws).mean(axis=-1)) / count - center**2
    third = ((differences - center[..., None]) ** 3).mean(axis=-1)
    slope = third / variance**1.5 / np.sqrt(count)
    error = np.sqrt(variance / count)
    ends = [center - error * _unskewed(sign * quantile, slope) for sign in (1, -1)]
    return np.clip(ends[0], -1.0, center), np.clip(ends[1], center, 1.0)


def difference_quantile(matrix: FloatArray, draws: FloatArray, level: float = 0.95) -> float:
    """The quantile of t for `matrix`, shape [questions, limits]; for several limits, of the largest of their |t|.

    Three times as many degrees of freedom as questions: by simulation, a third of them makes intervals of 30 questions
    too wide, and the normal quantile too narrow.
    """
    count, limits = matrix.shape
    freedom = 3 * count
    single = float(stdtrit(freedom, (1 + level) / 2))
    if limits == 1:
        return single
    centered = matrix - matrix.mean(axis=0)
    # The pseudo-question of `difference_limits`, at all limits alike, as the points of one trace mostly are.
    covariance = (centered.T @ centered + (1 / draws).mean()) / count
    errors = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(errors, errors))
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((BAND_DRAWS, limits)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    scale = np.sqrt(rng.chisquare(freedom, BAND_DRAWS) / freedom)
    sizes = np.abs(normal) / scale[:, None]
    # As a ratio to one limit's own quantile in the same draws, so that limits that agree in everything count as one.
    wider = np.quantile(sizes.max(axis=1), level) / np.quantile(sizes, level, axis=0).mean()
    return single * max(1.0, float(wider))


def most_alike(values: FloatArray) -> int:
    """The largest number of equal values."""
    return int(np.unique(np.rint(values * 1e9), return_counts=True)[1].max())


def _unskewed(t: float | FloatArray, slope: FloatArray) -> FloatArray:
    """Hall's inverse: the studentized mean at which his cubic transformation is `t`; `slope` is skewness / sqrt(n)."""
    safe = np.where(np.abs(slope) < 1e-9, 1e-9, slope)
    return np.asarray(3 / safe * (np.cbrt(1 + safe * (t - safe / 6)) - 1))


def _checked(values: FloatArray, dimensions: int = 1) -> int:
    if values.ndim != dimensions or len(values) == 0:
        raise ValueError(f"an interval needs one value per question; got an array of shape {values.shape}.")
    return len(values)
