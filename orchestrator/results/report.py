"""The report of a sweep: curves as a picture, every cell as a row. A view of the store: delete it freely."""

import csv
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # works on machines without a display

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from eval.comparison import adjust, compare_curves
from eval.intervals import FEW
from eval.metrics import Outcome
from orchestrator.plan.resolved_grid import ResolvedVariant
from orchestrator.results.cells import CellResult, Results
from orchestrator.results.numbers import numbers

STYLES = ("-", "--", ":", "-.")


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write `curves.png`, `cells.csv` and `against_dense.csv` into `folder`. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "curves.png", folder / "cells.csv", folder / "against_dense.csv"]
    _draw(results, files[0])
    _write_rows([_row(results, cell) for cell in results.cells], files[1])
    _write_rows(_corrected(list(_curve_rows(results))), files[2])
    return files


LEGEND_LINE = 0.2
"""Inches. Without room of its own, a long legend covers the curves."""


def _draw(results: Results, file: Path) -> None:
    """One panel per model and benchmark: accuracy against the token limit, with 95 % intervals."""
    models = list(dict.fromkeys(variant.model_label for variant in results.resolved.variants))
    names = [benchmark.name for benchmark in results.resolved.benchmarks]
    width = min(len(names), 4)
    rows = len(models) * -(-len(names) // width)
    columns = min(3, width)
    legend = LEGEND_LINE * -(-len({variant.label for variant in results.resolved.variants}) // columns)
    figure, axes = plt.subplots(
        rows,
        width,
        figsize=(1 + 3.4 * width, 1.1 + 2.9 * rows + legend),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    panels = [(model, name) for model in models for name in names]
    for axis, (model, name) in zip(axes.flat, panels, strict=False):
        cells = [c for c in results.cells if c.benchmark == name and c.variant.model_label == model]
        _panel(axis, cells, name if len(models) == 1 else f"{model}: {name}", results.resolved.grid.token_limits)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("accuracy")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    figure.suptitle(
        f"{results.resolved.grid.name}\naccuracy by thinking-token limit, 95 % intervals\n"
        f"hollow: under {FEW} questions right, or wrong",
        fontsize=10,
    )
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _panel(axis: Axes, cells: list[CellResult], title: str, limits: tuple[int, ...]) -> None:
    variants: dict[str, ResolvedVariant] = {cell.variant.patch_id: cell.variant for cell in cells}
    colours = {method: f"C{i}" for i, method in enumerate(dict.fromkeys(v.spec.method for v in variants.values()))}
    seen: dict[str, int] = {}
    for number, variant in enumerate(variants.values()):
        curve = [c for c in cells if c.variant.patch_id == variant.patch_id and c.metrics.interval is not None]
        if not curve:
            continue
        style = STYLES[seen.setdefault(variant.spec.method, 0) % len(STYLES)]
        seen[variant.spec.method] += 1
        # Shifted a little, so that the intervals of curves that agree do not overlap.
        shift = 1 + 0.018 * (number - (len(variants) - 1) / 2)
        x = [max(cell.limit, 0.5) * shift for cell in curve]
        y = [cell.metrics.accuracy or 0.0 for cell in curve]
        below = [a - (c.metrics.interval.low if c.metrics.interval else a) for a, c in zip(y, curve, strict=True)]
        above = [(c.metrics.interval.high if c.metrics.interval else a) - a for a, c in zip(y, curve, strict=True)]
        colour = "black" if variant.dense else colours[variant.spec.method]
        axis.errorbar(
            x, y, yerr=[below, above], color=colour, linestyle=style, marker="o", markersize=3.5,
            linewidth=1.4, elinewidth=0.7, label=variant.label,
        )  # fmt: skip
        noted = [(a, b) for a, b, c in zip(x, y, curve, strict=True) if c.metrics.interval and c.metrics.interval.note]
        axis.plot(
            *zip(*noted, strict=True) if noted else ((), ()), "o", color=colour, mfc="white", markersize=4, zorder=5
        )
    axis.set_xscale("log", base=2)
    axis.set_xticks([max(limit, 0.5) for limit in limits], [str(limit) for limit in limits])
    axis.minorticks_off()
    axis.set_ylim(-0.02, 1.04)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("thinking-token limit")
    axis.grid(alpha=0.25, linewidth=0.6)


def _write_rows(rows: list[dict[str, object]], file: Path) -> None:
    """Every column that some row has: pass@k has more of them where there are more draws."""
    widest = max(rows, key=len, default={})
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(widest))
        writer.writeheader()
        writer.writerows(rows)


def _corrected(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Add the Holm correction of each curve's one test over all curves of the grid."""
    tests = {(r["model"], r["variant"], r["benchmark"]): float(str(r["mean_p_permutation"])) for r in rows}
    corrected = dict(zip(tests, adjust(list(tests.values())), strict=True))
    found = [(r, corrected[(r["model"], r["variant"], r["benchmark"])]) for r in rows]
    return [r | {"mean_p_holm": one.holm, "mean_p_benjamini_hochberg": one.benjamini_hochberg} for r, one in found]


def _curve_rows(results: Results) -> Iterator[dict[str, object]]:
    """Whole curves against dense, a row per variant, benchmark and limit.

    The points of a curve share traces, so they are not independent tests: the band covers the whole curve of
    differences at once, and `mean_*` is a single test of the whole curve.
    """
    for variant in results.resolved.variants:
        dense = results.resolved.dense_of(variant)
        if dense is None or variant.dense:
            continue
        for benchmark in results.resolved.benchmarks:
            try:
                curve = compare_curves(
                    _outcomes(results, variant, benchmark.name),
                    _outcomes(results, dense, benchmark.name),
                    planned=[
                        (question.problem_id, seed)
                        for question in variant.questions
                        if question.benchmark == benchmark.name
                        for seed in results.resolved.grid.sampling.seeds
                    ],
                )
            except ValueError:  # no question has draws of both variants at every limit yet
                continue
            for limit, difference, band in zip(curve.limits, curve.differences, curve.band, strict=True):
                yield {
                    "model": variant.model_label,
                    "variant": variant.label,
                    "benchmark": benchmark.name,
                    "token_limit": limit,
                    "minus_dense": difference,
                    "band_low": band.low,
                    "band_high": band.high,
                    "band_note": band.note,
                    "questions": curve.mean.questions,
                    "mean_minus_dense": curve.mean.difference,
                    "mean_low": curve.mean.interval.low,
                    "mean_high": curve.mean.interval.high,
                    "mean_note": curve.mean.note,
                    "mean_if_missing_low": curve.mean.lowest,
                    "mean_if_missing_high": curve.mean.highest,
                    "unpaired": curve.mean.unpaired,
                    "missing_pairs": curve.mean.missing,
                    "improved": curve.mean.improved,
                    "worsened": curve.mean.worsened,
                    "mean_p_mcnemar": curve.mean.p_mcnemar,
                    "mean_p_permutation": curve.mean.p_permutation,
                    "mean_p_if_missing": curve.mean.p_if_missing,
                }


def _outcomes(results: Results, variant: ResolvedVariant, benchmark: str) -> dict[int, tuple[Outcome, ...]]:
    return {
        cell.limit: cell.outcomes
        for cell in results.cells
        if cell.variant.patch_id == variant.patch_id and cell.benchmark == benchmark
    }


def _row(results: Results, cell: CellResult) -> dict[str, object]:
    spec = cell.variant.spec
    return {
        "model": cell.variant.model_label,
        "method": spec.method,
        "label": spec.label or "",
        "allocator": spec.allocator or "",
        "sparsity": "" if spec.sparsity is None else spec.sparsity,
        "pattern": spec.pattern or "",
        "blocks": spec.blocks or "",
        "benchmark": cell.benchmark,
        "token_limit": cell.limit,
        **numbers(results, cell),
        "patch": cell.variant.patch_id,
    }
