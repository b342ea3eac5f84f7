"""Is one variant better than another? Draws are paired by question and seed; tests and intervals are by question.

Two variants that answer the same questions share the questions' difficulty, and pairing removes it. Seeds of one
question are not independent evidence, so every test and interval flips or counts whole questions. Points of one curve
come from the same traces, so `compare_curves` keeps a question's points together.

Only pairs that are graded on both sides are compared. Draws may be missing because they are long, or wrong, so a
comparison also says what it would be if everything missing spoke for the one side, or for the other.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
from scipy.special import bdtr

from eval.intervals import FloatArray, Interval, difference_band, difference_interval
from eval.metrics import Outcome
from eval.multiplicity import benjamini_hochberg, holm

LARGEST_SUPPORT = 2_000_000
"""Support points up to which the permutation distribution is exact; beyond, sign flips are sampled."""
SAMPLED_FLIPS = 100_000
MOST_LIMITS = 12
"""Token limits of a curve up to which the test of its mean is exact."""


@dataclass(frozen=True)
class Comparison:
    """Variant minus baseline at one token limit. Differences are of accuracies, as shares."""

    difference: float
    """The mean over questions."""
    interval: Interval
    """Of `difference`, over questions: `eval.intervals.difference_interval`."""
    questions: int
    """Questions with at least one pair."""
    pairs: int
    """Pairs of draws: a (question, seed) that both variants have graded."""
    unpaired: int
    """Graded draws of either side that have no counterpart and were left out: what is missing is missing unequally."""
    improved: int
    """Questions whose difference is positive."""
    worsened: int
    """Questions whose difference is negative."""
    p_mcnemar: float
    """Exact McNemar test of `improved` against `worsened`: the textbook test for one seed; with several, the sign of a
    question's difference is its vote."""
    p_permutation: float
    """Sign-flip test of the mean difference by question; see `permutation_p`."""
    missing: int
    """Planned pairs of draws that lack a grade on either side."""
    lowest: float
    """`difference` if every missing draw of the variant were wrong and every one of the baseline right."""
    highest: float
    """And the reverse. Both are `difference` where nothing is missing."""
    p_if_missing: float
    """`p_permutation` at whichever of these two is nearer to 0; 1 where 0 lies between them."""

    @property
    def note(self) -> str:
        """What to know before trusting the comparison; empty if nothing."""
        unequal = f"unequal missing data: {self.unpaired} draws are graded on one side only" if self.unpaired else ""
        return "; ".join(part for part in (self.interval.note, unequal) if part)


@dataclass(frozen=True)
class CurveComparison:
    """Variant minus baseline at all limits, on the questions that have pairs at every limit.

    `differences` and `band` are per limit, as shares; the band covers all of them simultaneously at its level. `mean`
    compares the curves' averages over the limits: one test for the whole curve; its `unpaired` and `missing` count all
    limits.
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


def compare(
    variant: Collection[Outcome],
    baseline: Collection[Outcome],
    level: float = 0.95,
    planned: Collection[tuple[str, int]] | None = None,
) -> Comparison:
    """Compare two variants at one limit, on the (question, seed) pairs that both have graded.

    `level` is the coverage of the interval. `planned`: the (question, seed) pairs that the grid asks for; without it,
    those that either side has, graded or not. Raises `ValueError` if they have no graded pair in common.
    """
    return _comparison(_pair(variant, baseline), _filled([variant], [baseline], planned), level)


def compare_curves(
    variant: Mapping[int, Collection[Outcome]],
    baseline: Mapping[int, Collection[Outcome]],
    level: float = 0.95,
    planned: Collection[tuple[str, int]] | None = None,
) -> CurveComparison:
    """Compare two curves (token limit -> outcomes) at the limits that both have; `planned` as in `compare`.

    The band is `eval.intervals.difference_band`. Raises `ValueError` if the curves share no limit or no question.
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
    most, fewest = counts.max(), counts.min(axis=1)
    unpaired = sum(pair.unpaired for pair in pairs)
    mean_paired = _Paired(tuple(shared), (matrix * most).mean(axis=1), np.full(len(shared), most), unpaired)
    filled = _filled([variant[limit] for limit in limits], [baseline[limit] for limit in limits], planned)
    return CurveComparison(
        limits=limits,
        differences=tuple(float(value) for value in matrix.mean(axis=0)),
        band=difference_band(matrix, fewest, level),
        mean=_comparison(mean_paired, filled, level),
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
    fair coin. As differences are multiples of 1/lcm(counts), or of that over the number of limits where they are means
    over a curve, the distribution of their total is computed exactly, by convolution. If missing draws make that
    lattice too fine, 100,000 flips are sampled: p = (hits + 1) / (flips + 1).
    """
    differences = sums / counts
    unit = _lattice(differences, lcm(*(int(count) for count in counts)))
    if unit is None or 2 * float(np.abs(differences * unit).sum()) + 1 > LARGEST_SUPPORT:
        return _sampled_flips(differences)
    steps = np.abs(np.rint(differences * unit)).astype(np.int64)
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


def _lattice(differences: FloatArray, unit: int) -> int | None:
    """The first multiple of `unit` of which all `differences` are whole multiples of the inverse; None if none is."""
    for multiple in range(unit, unit * (MOST_LIMITS + 1), unit):
        if np.allclose(np.rint(differences * multiple), differences * multiple, rtol=0, atol=1e-6):
            return multiple
    return None


def _sampled_flips(differences: FloatArray) -> float:
    rng = np.random.default_rng(0)
    observed = abs(float(differences.sum())) - 1e-9
    hits = 0
    for _ in range(SAMPLED_FLIPS // 1000):
        signs = rng.integers(0, 2, size=(1000, len(differences))) * 2 - 1
        hits += int((np.abs(signs @ differences) >= observed).sum())
    return (hits + 1) / (SAMPLED_FLIPS + 1)


def _pair(variant: Collection[Outcome], baseline: Collection[Outcome]) -> _Paired:
    known = [_graded(variant), _graded(baseline)]
    common = [key for key in known[0] if key in known[1]]
    if not common:
        raise ValueError("the two variants share no graded (question, seed) pair, so there is nothing to compare.")
    sums: dict[str, int] = {}
    counts: dict[str, int] = {}
    for key in common:
        sums[key[0]] = sums.get(key[0], 0) + known[0][key] - known[1][key]
        counts[key[0]] = counts.get(key[0], 0) + 1
    questions = tuple(sums)
    return _Paired(
        questions=questions,
        sums=np.array([sums[question] for question in questions], dtype=np.float64),
        counts=np.array([counts[question] for question in questions], dtype=np.float64),
        unpaired=len(known[0]) + len(known[1]) - 2 * len(common),
    )


@dataclass(frozen=True)
class _Filled:
    """Both sides with every missing draw filled in against the variant, and in its favour."""

    missing: int
    against: _Paired
    favour: _Paired


def _filled(
    variant: Sequence[Collection[Outcome]],
    baseline: Sequence[Collection[Outcome]],
    planned: Collection[tuple[str, int]] | None,
) -> _Filled | None:
    """The two sides at one or more limits; None if nothing is missing.

    At several limits a draw is its mean over them, and `missing` counts them all.
    """
    asked = set(planned or ()) | {(one.problem_id, one.seed) for side in (*variant, *baseline) for one in side}
    known = [[_graded(side) for side in sides] for sides in (variant, baseline)]
    missing = sum(key not in one or key not in two for one, two in zip(*known, strict=True) for key in asked)
    if not missing:
        return None

    def pair(of_variant: bool) -> _Paired:
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for question, seed in sorted(asked):
            gaps = [
                one.get((question, seed), of_variant) - two.get((question, seed), not of_variant)
                for one, two in zip(*known, strict=True)
            ]
            sums[question] = sums.get(question, 0.0) + sum(gaps) / len(gaps)
            counts[question] = counts.get(question, 0) + 1
        return _Paired(tuple(sums), np.array(list(sums.values())), np.array(list(counts.values()), dtype=np.float64), 0)

    return _Filled(missing, pair(False), pair(True))


def _graded(outcomes: Collection[Outcome]) -> dict[tuple[str, int], bool]:
    return {(one.problem_id, one.seed): one.correct for one in outcomes if one.correct is not None}


def _comparison(paired: _Paired, filled: _Filled | None, level: float) -> Comparison:
    differences = paired.differences
    improved, worsened = int((differences > 0).sum()), int((differences < 0).sum())
    difference, p = float(differences.mean()), permutation_p(paired.sums, paired.counts)
    missing, lowest, highest, p_if_missing = 0, difference, difference, p
    if filled is not None:
        missing = filled.missing
        lowest, highest = float(filled.against.differences.mean()), float(filled.favour.differences.mean())
        nearer = filled.against if lowest > 0 else filled.favour
        p_if_missing = 1.0 if lowest <= 0 <= highest else permutation_p(nearer.sums, nearer.counts)
    return Comparison(
        difference=difference,
        interval=difference_interval(differences, paired.counts, level),
        questions=len(differences),
        pairs=int(paired.counts.sum()),
        unpaired=paired.unpaired,
        improved=improved,
        worsened=worsened,
        p_mcnemar=mcnemar_exact(improved, worsened),
        p_permutation=p,
        missing=missing,
        lowest=lowest,
        highest=highest,
        p_if_missing=p_if_missing,
    )
