"""How often do the intervals cover, what does a design find, and how often do tests alarm falsely? By simulation.

    python -m benchmarks.coverage [--sweeps 4000] [--json]

A simulated sweep draws questions from a population (their chances of success are Beta distributed, so difficulty varies
as it does in a benchmark), then draws answers, then calls the very functions that reports call, for all sweeps at once.
An interval covers when the population's value lies in it. `noted` is the share of sweeps whose output carries the
interval's note ("few right", "few wrong", "few differ"). A row is marked where its coverage is not within 93 to 97 %: *
if most of its sweeps have the note, ! if not.
`docs/evaluation.md` states what this printed.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import betaln

from eval.comparison import permutation_p
from eval.intervals import (
    FEW,
    FloatArray,
    accuracy_limits,
    difference_limits,
    difference_quantile,
)
from eval.multiplicity import benjamini_hochberg, holm
from eval.power import detectable_loss

QUESTIONS = (30, 40, 198, 500)
SEEDS = (1, 3, 16)
ACCURACIES = (0.01, 0.03, 0.1, 0.5, 0.9, 0.97)
KEPT = {"loss of 10 %": 0.9, "no loss": 1.0, "loss of 4/9": 5 / 9}
"""The share of every chance that the variant keeps; 5/9 is from .9 to .5."""
BETWEEN_SHARE = 0.5  # of the variance of an answer, how much lies between questions
LIMITS = 5
VARIANTS = 12
NOMINAL = (0.93, 0.97)


def abilities(
    rng: np.random.Generator, shape: int | tuple[int, ...], accuracy: float, between_share: float = BETWEEN_SHARE
) -> FloatArray:
    """Chances of success, Beta distributed with mean `accuracy` and variance `between_share`·accuracy·(1-accuracy)."""
    strength = 1 / between_share - 1
    return rng.beta(accuracy * strength, (1 - accuracy) * strength, size=shape)


def answers(rng: np.random.Generator, chances: FloatArray, seeds: int) -> FloatArray:
    """Number of correct draws per question, shape of `chances`."""
    return rng.binomial(seeds, chances).astype(np.float64)


def covered(limits: tuple[FloatArray, FloatArray], truth: float | FloatArray) -> np.ndarray:
    """Whether each interval holds the true value."""
    return (limits[0] - 1e-12 <= truth) & (truth <= limits[1] + 1e-12)


def accuracy_row(
    sweeps: int, questions: int, seeds: int, accuracy: float, between_share: float = BETWEEN_SHARE
) -> dict[str, float]:
    """Coverage and mean width of the interval of a cell's accuracy, and how often it has a note."""
    rng = np.random.default_rng(1)
    means = answers(rng, abilities(rng, (sweeps, questions), accuracy, between_share), seeds) / seeds
    limits = accuracy_limits(means, np.full(questions, float(seeds)))
    few = np.minimum((means > 0).sum(axis=1), (means < 1).sum(axis=1)) < FEW
    return _row(limits, accuracy, few)


def pass_row(sweeps: int, questions: int, seeds: int, accuracy: float, k: int) -> dict[str, float]:
    """The same for pass@k."""
    rng = np.random.default_rng(1)
    wrong = seeds - answers(rng, abilities(rng, (sweeps, questions), accuracy), seeds)
    missed = np.prod([(wrong - i) / (seeds - i) for i in range(k)], axis=0)
    strength = 1 / BETWEEN_SHARE - 1
    a, b = accuracy * strength, (1 - accuracy) * strength
    means, truth = 1 - missed, 1 - float(np.exp(betaln(a, b + k) - betaln(a, b)))
    few = np.minimum((means > 0).sum(axis=1), (means < 1).sum(axis=1)) < FEW
    return _row(accuracy_limits(means, np.full(questions, seeds / k)), truth, few)


def difference_row(
    sweeps: int, questions: int, seeds: int, accuracy: float, kept: float, between_share: float = BETWEEN_SHARE
) -> dict[str, float]:
    """The same for a paired difference. The variant keeps the share `kept` of every chance."""
    rng = np.random.default_rng(1)
    chances = abilities(rng, (sweeps, questions), accuracy, between_share)
    sums = answers(rng, chances * kept, seeds) - answers(rng, chances, seeds)
    draws = np.full(questions, float(seeds))
    limits = difference_limits(sums / seeds, draws, difference_quantile(sums[0][:, None], draws))
    alike = np.max([(sums == value).sum(axis=1) for value in range(-seeds, seeds + 1)], axis=0)
    return _row(limits, accuracy * (kept - 1), questions - alike < FEW)


def band_row(sweeps: int, questions: int, seeds: int, accuracy: float, kept: float) -> dict[str, float]:
    """The same for the band of a curve of LIMITS points: it covers when it holds every point."""
    rng = np.random.default_rng(1)
    draws = np.full(questions, float(seeds))
    hits, widths, few = [], [], []
    for _ in range(sweeps):
        chances = abilities(rng, questions, accuracy)[:, None]
        matrix = (curve(rng, chances * kept, questions, seeds) - curve(rng, chances, questions, seeds)) / seeds
        low, high = difference_limits(matrix.T, draws, difference_quantile(matrix, draws))
        hits.append(covered((low, high), accuracy * (kept - 1) * REACH).all())
        widths.append((high - low).mean())
        few.append(any(len(column) - np.unique(column, return_counts=True)[1].max() < FEW for column in matrix.T))
    return {"coverage": float(np.mean(hits)), "width": float(np.mean(widths)), "noted": float(np.mean(few))}


def power_row(sweeps: int, questions: int, seeds: int, comparisons: int) -> dict[str, float | None]:
    """The loss that a plan says is found with 80 % chance, and how often the permutation test finds it."""
    loss = detectable_loss(questions, seeds, comparisons)
    rng = np.random.default_rng(3)
    chances = abilities(rng, (sweeps, questions), 0.5)
    kept = 1 - (0.5 if loss is None else loss) / 0.5
    sums = answers(rng, chances * kept, seeds) - answers(rng, chances, seeds)
    counts = np.full(questions, float(seeds))
    return {"loss": loss, "found": float(np.mean([permutation_p(one, counts) <= 0.05 / comparisons for one in sums]))}


def false_alarms(sweeps: int, questions: int, seeds: int, level: float = 0.05) -> dict[str, float]:
    """Share of null grids (12 variants x 5 limits against dense) with any finding after Holm, and after BH.

    The points of a curve share traces: once a draw is right at a limit it mostly stays right, so points correlate.
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


REACH = np.linspace(0.4, 1.0, LIMITS)  # a smaller limit reaches a smaller part of the chance


def curve(rng: np.random.Generator, chances: FloatArray, questions: int, seeds: int) -> FloatArray:
    """Correct draws per question and limit, shape [questions, LIMITS]; the points of a draw share its luck."""
    luck = rng.random((questions, seeds))[:, :, None]
    return (luck < chances[:, :, None] * REACH).sum(axis=1).astype(np.float64)


def _row(limits: tuple[FloatArray, FloatArray], truth: float, few: np.ndarray) -> dict[str, float]:
    return {
        "coverage": float(covered(limits, truth).mean()),
        "width": float((limits[1] - limits[0]).mean()),
        "noted": float(few.mean()),
    }


def measured(sweeps: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(title, rows) of every table, in the order in which they are printed."""
    cells = [{"questions": n, "seeds": s} for n in QUESTIONS for s in SEEDS]
    yield (
        "accuracy",
        [cell | {"accuracy": p} | accuracy_row(sweeps, *cell.values(), p) for cell in cells for p in ACCURACIES],
    )
    for name, kept in KEPT.items():
        rows = [
            cell | {"accuracy": p} | difference_row(sweeps, *cell.values(), p, kept)
            for cell in cells
            for p in ACCURACIES
        ]
        yield f"paired difference, {name}", rows
    shares = (0.2, 0.8)
    yield (
        "accuracy, other shares of variance between questions",
        [
            {"between": share, **cell, "accuracy": p} | accuracy_row(sweeps, *cell.values(), p, share)
            for share in shares
            for cell in cells
            if cell["seeds"] > 1
            for p in ACCURACIES[:4]
        ],
    )
    yield (
        "pass@4 of 16 draws",
        [{"questions": n, "accuracy": p} | pass_row(sweeps, n, 16, p, 4) for n in QUESTIONS for p in ACCURACIES],
    )
    yield (
        f"band of a curve of {LIMITS} points",
        [
            {"questions": n, "seeds": 3, "accuracy": p, "kept": kept} | band_row(sweeps // 4, n, 3, p, kept)
            for n in (30, 198)
            for p in (0.03, 0.5, 0.97)
            for kept in (0.9, 1.0)
        ],
    )
    yield (
        "power of the loss that a plan prints",
        [
            {"questions": n, "seeds": s, "tests": tests} | power_row(min(sweeps, 1000), n, s, tests)
            for n in QUESTIONS
            for s in SEEDS
            if n * s <= 600  # the permutation test of thousands of draws takes a second
            for tests in (1, 60)
        ],
    )
    yield (
        f"null grids of {VARIANTS * LIMITS} tests with a finding",
        [{"questions": n} | false_alarms(min(sweeps // 4, 1000), n, 3) for n in (30, 100)],
    )


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table as text; * marks a coverage that is not nominal and mostly noted, ! one that is not noted."""
    yield "  ".join(f"{name:>9}" for name in rows[0])
    for row in rows:
        nominal = "coverage" not in row or NOMINAL[0] <= row["coverage"] <= NOMINAL[1]
        mark = "" if nominal else " *" if row["noted"] > 0.5 else " !"
        yield "  ".join(f"{_text(name, value):>9}" for name, value in row.items()) + mark


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.3f}" if name in ("coverage", "width", "found", "loss", "noted") else f"{value:g}"


def main() -> None:
    """Print the tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=4000)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    began = time.monotonic()
    found: dict[str, Any] = {"sweeps": arguments.sweeps}
    for title, rows in measured(arguments.sweeps):
        found[title] = rows
        if not arguments.json:
            print(f"\n{title}", *lines(rows), sep="\n", flush=True)
    found["seconds"] = time.monotonic() - began
    print(json.dumps(found) if arguments.json else f"\n{arguments.sweeps} sweeps each, {found['seconds']:.0f} s")


if __name__ == "__main__":
    main()
