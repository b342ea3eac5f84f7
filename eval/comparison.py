"""Is one variant better than another? Draws are paired by question and seed; tests and intervals are by question.

Two variants that answer the same questions share the questions' difficulty, and pairing removes it. Seeds of one
question are not independent evidence, so every test and interval resamples, flips or counts whole questions. Points of
one curve come from the same traces, so `compare_curves` resamples a question with all its points together.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
from scipy.special import bdtr

from eval.intervals import (
    RESAMPLES,
    FloatArray,
    Interval,
    bootstrap_interval,
    difference_interval,
    expanded_tail,
)
from eval.metrics import Outcome
from eval.multiplicity import benjamini_hochberg, holm

LARGEST_SUPPORT = 2_000_000
"""Support points up to which the permutation distribution is exact; beyond, sign flips are sampled."""
SAMPLED_FLIPS = 100_000


@dataclass(frozen=True)
class Comparison:
    """Variant minus baseline at one token limit. Differences are of accuracies, as shares."""

    difference: float
    """The mean over questions."""
    interval: Interval
    """Of `difference`: the paired bootstrap over questions, `eval.intervals.bootstrap_interval`."""
    analytic: Interval
    """Of `difference`: `eval.intervals.difference_interval`. Its coverage is better than the bootstrap's for few
    questions, and where few of them differ."""
    questions: int
    """Questions with at least one pair."""
    pairs: int
    """Pairs of draws: a (question, seed) that both variants have graded."""
    unpaired: int
    """Graded draws of either side that have no counterpart and were left out."""
    improved: int
    """Questions whose difference is positive."""
    worsened: int
    """Questions whose difference is negative."""
    p_mcnemar: float
    """Exact McNemar test of `improved` against `worsened`: the textbook test for one seed; with several, the sign of a
    question's difference is its vote."""
    p_permutation: float
    """Sign-flip test of the mean difference by question; see `permutation_p`."""


@dataclass(frozen=True)
class CurveComparison:
    """Variant minus baseline at all limits, on the questions that have pairs at every limit.

    `differences` and `band` are per limit, as shares; the band covers all of them simultaneously at its level. `mean`
    compares the curves' averages over the limits: one test for the whole curve.
    """

    limits: tuple[int, ...]
    differences: tuple[float, ...]
    band: tuple[Interval, ...]
    mean: Comparison


@dataclass(frozen=True)
class Adjusted:
    """The p-value of one test, and its two adjustments for all tests of the grid."""

    p: float
    holm: float
    benjamini_hochberg: float


@dataclass(frozen=True)
class _Paired:
    """Per question, shape [questions]: the sum over seeds of variant minus baseline, and the number of pairs."""

    questions: tuple[str, ...]
    sums: FloatArray
    counts: FloatArray
    unpaired: int

    @property
    def differences(self) -> FloatArray:
        return self.sums / self.counts


def compare(variant: Collection[Outcome], baseline: Collection[Outcome], level: float = 0.95) -> Comparison:
    """Compare two variants at one limit, on the (question, seed) pairs that both have graded.

    `level` is the coverage of the intervals. Raises `ValueError` if they have no pair in common.
    """
    return _comparison(_pair(variant, baseline), level)


def compare_curves(
    variant: Mapping[int, Collection[Outcome]],
    baseline: Mapping[int, Collection[Outcome]],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CurveComparison:
    """Compare two curves (token limit -> outcomes) at the limits that both have.

    The band is the studentized-maximum bootstrap over questions (sup-t, Montiel Olea & Plagborg-Møller 2019). Raises
    `ValueError` if the curves share no limit or no question.
    """
    limits = tuple(sorted(set(variant) & set(baseline)))
    if not limits:
        raise ValueError(f"the curves share no token limit: {sorted(variant)} against {sorted(baseline)}.")
    pairs = [_pair(variant[limit], baseline[limit]) for limit in limits]
    differences = [dict(zip(pair.questions, pair.differences, strict=True)) for pair in pairs]
    shared = [question for question in pairs[0].questions if all(question in known for known in differences)]
    if not shared:
        raise ValueError("no question has a pair at every limit. Complete the cells, or compare limit by limit.")
    matrix = np.array([[known[question] for known in differences] for question in shared])  # [questions, limits]
    seeds = [dict(zip(pair.questions, pair.counts, strict=True)) for pair in pairs]
    counts = np.array([[known[question] for known in seeds] for question in shared])
    mean_paired = _Paired(tuple(shared), (matrix * counts.max()).mean(axis=1), np.full(len(shared), counts.max()), 0)
    return CurveComparison(
        limits=limits,
        differences=tuple(float(value) for value in matrix.mean(axis=0)),
        band=_band(matrix, level, resamples, seed),
        mean=_comparison(mean_paired, level),
    )


def adjust(p_values: Sequence[float]) -> list[Adjusted]:
    """Each of the p-values of a grid with both its adjustments, in the given order."""
    columns = zip(p_values, holm(p_values), benjamini_hochberg(p_values), strict=True)
    return [Adjusted(p, by_holm, by_bh) for p, by_holm, by_bh in columns]


def mcnemar_exact(improved: int, worsened: int) -> float:
    """Two-sided p-value of the exact McNemar test: the binomial test of `improved` among the discordant questions. It
    is 1 if there are none."""
    discordant = improved + worsened
    # The distribution is symmetric at one half, so the smaller tail counts twice.
    return min(1.0, 2 * float(bdtr(min(improved, worsened), discordant, 0.5))) if discordant else 1.0


def permutation_p(sums: FloatArray, counts: FloatArray) -> float:
    """Two-sided p-value of the sign-flip test that the mean of `sums / counts` (each of shape [questions]) is 0.

    Under the null hypothesis the two variants are exchangeable at each question, so the sign of its difference is a
    fair coin. As differences are multiples of 1/lcm(counts), the distribution of their total is computed exactly, by
    convolution. If missing draws make that lattice too fine, 100,000 flips are sampled: p = (hits + 1) / (flips + 1).
    """
    differences = sums / counts
    unit = lcm(*(int(count) for count in counts))
    steps = np.abs(np.rint(differences * unit)).astype(np.int64)
    on_lattice = np.allclose(steps, np.abs(differences * unit), atol=1e-6)
    if not on_lattice or 2 * int(steps.sum()) + 1 > LARGEST_SUPPORT:
        return _sampled_flips(differences)
    reach = int(steps.sum())
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in steps[steps > 0].tolist():
        moved = np.zeros_like(chances)
        moved[step:] += chances[:-step]
        moved[:-step] += chances[step:]
        chances = moved / 2
    observed = abs(int(np.rint((differences * unit).sum())))
    if observed == 0:
        return 1.0
    return float(min(1.0, chances[: reach - observed + 1].sum() + chances[reach + observed :].sum()))


def _sampled_flips(differences: FloatArray) -> float:
    rng = np.random.default_rng(0)
    observed = abs(float(differences.sum())) - 1e-9
    hits = 0
    for _ in range(SAMPLED_FLIPS // 1000):
        signs = rng.integers(0, 2, size=(1000, len(differences))) * 2 - 1
        hits += int((np.abs(signs @ differences) >= observed).sum())
    return (hits + 1) / (SAMPLED_FLIPS + 1)


def _pair(variant: Collection[Outcome], baseline: Collection[Outcome]) -> _Paired:
    known = [
        {(outcome.problem_id, outcome.seed): outcome.correct for outcome in side if outcome.correct is not None}
        for side in (variant, baseline)
    ]
    common = [key for key in known[0] if key in known[1]]
    if not common:
        raise ValueError("the two variants share no graded (question, seed) pair, so there is nothing to compare.")
    sums: dict[str, int] = {}
    counts: dict[str, int] = {}
    for key in common:
        sums[key[0]] = sums.get(key[0], 0) + bool(known[0][key]) - bool(known[1][key])
        counts[key[0]] = counts.get(key[0], 0) + 1
    questions = tuple(sums)
    return _Paired(
        questions=questions,
        sums=np.array([sums[question] for question in questions], dtype=np.float64),
        counts=np.array([counts[question] for question in questions], dtype=np.float64),
        unpaired=len(known[0]) + len(known[1]) - 2 * len(common),
    )


def _comparison(paired: _Paired, level: float) -> Comparison:
    differences = paired.differences
    improved, worsened = int((differences > 0).sum()), int((differences < 0).sum())
    return Comparison(
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences, level),
        analytic=difference_interval(differences, int(paired.counts.max()), level),
        questions=len(differences),
        pairs=int(paired.counts.sum()),
        unpaired=paired.unpaired,
        improved=improved,
        worsened=worsened,
        p_mcnemar=mcnemar_exact(improved, worsened),
        p_permutation=permutation_p(paired.sums, paired.counts),
    )


def _band(matrix: FloatArray, level: float, resamples: int, seed: int) -> tuple[Interval, ...]:
    """Simultaneous intervals for the column means of `matrix`, shape [questions, limits]."""
    count = len(matrix)
    center = matrix.mean(axis=0)
    if count == 1:
        return tuple(Interval(-1.0, 1.0, level) for _ in center)
    rows, frequency = np.unique(matrix, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(count, frequency / count, size=resamples)
    means = drawn @ rows / count  # [resamples, limits]
    errors = means.std(axis=0)
    moving = errors > 0
    if not moving.any():
        return tuple(Interval(float(value), float(value), level) for value in center)
    largest = np.abs((means - center)[:, moving] / errors[moving]).max(axis=1)
    # The same small-sample expansion as for one interval, applied to the two-sided maximum.
    width = float(np.quantile(largest, 1 - 2 * expanded_tail(count, level)))
    return tuple(
        Interval(float(value - width * error), float(value + width * error), level)
        for value, error in zip(center, errors, strict=True)
    )
