"""How often do the intervals cover, and how often do the corrected tests raise a false alarm? Measured by
simulation.

    python -m benchmarks.coverage [--sweeps 2000] [--json]

A simulated sweep draws questions from a population (their chances of success are Beta distributed, so
difficulty varies as it does in a benchmark), then draws answers, then calls the very functions that reports
call. An interval covers when the population's value lies in it. ``docs/evaluation.md`` states what this
printed.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from eval.comparison import permutation_p
from eval.intervals import FloatArray, Interval, analytic_interval, bootstrap_interval, difference_interval
from eval.multiplicity import benjamini_hochberg, holm

QUESTIONS = (30, 40, 100, 198, 500)
SEEDS = (1, 3)
ACCURACIES = (0.2, 0.5, 0.8)
BETWEEN_SHARE = 0.5  # of the variance of an answer, how much lies between questions
EFFECT = 0.1
LIMITS = 5
VARIANTS = 12


def abilities(rng: np.random.Generator, questions: int, accuracy: float) -> FloatArray:
    """Chances of success, Beta distributed with mean ``accuracy`` and BETWEEN_SHARE of
    accuracy·(1-accuracy).
    """
    strength = 1 / BETWEEN_SHARE - 1
    return rng.beta(accuracy * strength, (1 - accuracy) * strength, size=questions)


def answers(rng: np.random.Generator, chances: FloatArray, seeds: int) -> FloatArray:
    """Number of correct draws per question, shape of ``chances``."""
    return rng.binomial(seeds, chances).astype(np.float64)


def coverage(sweeps: int, one_sweep: Callable[[np.random.Generator], tuple[Interval, float]]) -> float:
    """Share of ``sweeps`` whose interval holds the true value."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(sweeps):
        interval, truth = one_sweep(rng)
        hits += interval.low - 1e-12 <= truth <= interval.high + 1e-12
    return hits / sweeps


def accuracy_coverage(
    sweeps: int, questions: int, seeds: int, accuracy: float, interval: Callable[[FloatArray], Interval]
) -> float:
    """Coverage of an interval for the accuracy of one cell."""

    def one_sweep(rng: np.random.Generator) -> tuple[Interval, float]:
        return interval(answers(rng, abilities(rng, questions, accuracy), seeds) / seeds), accuracy

    return coverage(sweeps, one_sweep)


def difference_coverage(
    sweeps: int,
    questions: int,
    seeds: int,
    accuracy: float,
    effect: float,
    interval: Callable[[FloatArray], Interval],
) -> float:
    """Coverage of an interval for a paired difference. The variant loses the share ``effect`` of every
    chance.
    """

    def one_sweep(rng: np.random.Generator) -> tuple[Interval, float]:
        chances = abilities(rng, questions, accuracy)
        dense, pruned = answers(rng, chances, seeds), answers(rng, chances * (1 - effect), seeds)
        return interval((pruned - dense) / seeds), -effect * accuracy

    return coverage(sweeps, one_sweep)


def false_alarms(sweeps: int, questions: int, seeds: int, level: float = 0.05) -> dict[str, float]:
    """Share of null grids (12 variants x 5 limits against dense) with any finding after Holm, and after BH.

    The points of a curve share traces: once a draw is right at a limit it mostly stays right, so points
    correlate.
    """
    rng = np.random.default_rng(2)
    alarms = {"holm": 0, "benjamini_hochberg": 0, "uncorrected": 0}
    counts = np.full(questions, float(seeds))
    for _ in range(sweeps):
        chances = abilities(rng, questions, 0.5)[:, None]
        dense = curve(rng, chances, questions, seeds)
        p_values = []
        for _ in range(VARIANTS):
            sums = curve(rng, chances, questions, seeds) - dense
            p_values += [permutation_p(sums[:, limit], counts) for limit in range(LIMITS)]
        alarms["holm"] += min(holm(p_values)) <= level
        alarms["benjamini_hochberg"] += min(benjamini_hochberg(p_values)) <= level
        alarms["uncorrected"] += min(p_values) <= level
    return {name: count / sweeps for name, count in alarms.items()}


def curve(rng: np.random.Generator, chances: FloatArray, questions: int, seeds: int) -> FloatArray:
    """Correct draws per question and limit, shape [questions, LIMITS]; the points of a draw share its
    luck.
    """
    luck = rng.random((questions, seeds))[:, :, None]
    reach = np.linspace(0.4, 1.0, LIMITS)  # a smaller limit reaches a smaller part of the chance
    return (luck < chances[:, :, None] * reach).sum(axis=1).astype(np.float64)


def main() -> None:
    """Print the tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    began = time.monotonic()
    rows = []
    for questions in QUESTIONS:
        for seeds in SEEDS:
            for accuracy in ACCURACIES:
                cell = (arguments.sweeps, questions, seeds, accuracy)
                rows.append(
                    {
                        "questions": questions,
                        "seeds": seeds,
                        "accuracy": accuracy,
                        "bootstrap": accuracy_coverage(*cell, bootstrap_interval),
                        "analytic": accuracy_coverage(*cell, analytic_interval),
                        "paired_bootstrap": difference_coverage(*cell, EFFECT, bootstrap_interval),
                        "paired_analytic": difference_coverage(
                            *cell, EFFECT, partial(difference_interval, seeds=seeds)
                        ),
                    }
                )
                if not arguments.json:
                    print(*(f"{value:>6}" if name in ("questions", "seeds", "accuracy") else f"{name} {value:.4f}"
                            for name, value in rows[-1].items()))  # fmt: skip
    alarms = {count: false_alarms(min(arguments.sweeps, 1000), count, 3) for count in (30, 100)}
    summary = {
        "sweeps": arguments.sweeps,
        "coverage": rows,
        "false_alarms": alarms,
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(summary) if arguments.json else f"false alarms of null grids (60 tests): {alarms}")


if __name__ == "__main__":
    main()
