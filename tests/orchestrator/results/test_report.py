"""The report's files: every cell as a row, with its interval, pass@k and the comparison with dense."""

import csv
from pathlib import Path

import pytest

from eval.comparison import compare_curves
from orchestrator.__main__ import main
from orchestrator.results.cells import read_results
from tests.support.builders import TinySweep

PRUNED = {"method": "magnitude", "sparsity": 0.5}


@pytest.fixture
def half_pruned(sweep: TinySweep) -> TinySweep:
    """Dense is complete with 2 seeds; the pruned variant has the first seed only."""
    sweep.variants, sweep.seeds = [{"method": "dense"}, PRUNED], (0,)
    assert sweep.run() == "done"
    sweep.variants, sweep.seeds = [{"method": "dense"}], (0, 1)
    assert sweep.run() == "done"
    sweep.variants = [{"method": "dense"}, PRUNED]
    return sweep


def report(sweep: TinySweep) -> tuple[int, dict[tuple[str, int], dict[str, str]], list[dict[str, str]]]:
    """Exit status, the rows of cells.csv by method and limit, and the rows of against_dense.csv."""
    folder = sweep.folder / "report"
    status = main(["report", str(sweep.write_grid()), "--output", str(folder)])
    cells = {(row["method"], int(row["token_limit"])): row for row in rows(folder / "cells.csv")}
    return status, cells, rows(folder / "against_dense.csv")


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_cells_have_their_interval_and_pass_at_k(half_pruned: TinySweep) -> None:
    status, cells, _ = report(half_pruned)
    assert status == 3, "the pruned variant lacks a seed"
    for cell in read_results(half_pruned.store, half_pruned.resolve_grid()).cells:
        row, metrics = cells[cell.variant.spec.method, cell.limit], cell.metrics
        assert metrics.interval is not None
        assert (float(row["low"]), float(row["high"])) == (metrics.interval.low, metrics.interval.high)
        assert row["interval_note"] == "few right, few wrong", "four questions are few"
        assert float(row["pass_at_1"]) == pytest.approx(float(row["accuracy"]))
        assert row["pass_at_2"] == (str(metrics.pass_at[2]) if cell.variant.dense else "")
        assert (float(row["if_missing_wrong"]), float(row["if_missing_right"])) == (
            (metrics.accuracy, metrics.accuracy)
            if cell.variant.dense
            else (metrics.if_missing_wrong, metrics.if_missing_right)
        )


def test_cells_say_what_a_comparison_over_missing_draws_is_worth(half_pruned: TinySweep) -> None:
    _, cells, _ = report(half_pruned)
    against = read_results(half_pruned.store, half_pruned.resolve_grid()).against_dense
    for (_, _, limit), one in against.items():
        row, comparison = cells["magnitude", limit], one.comparison
        assert (row["pairs"], row["unpaired"], row["missing_pairs"]) == ("4", "4", "4")
        assert row["minus_dense_note"] == "few differ; unequal missing data: 4 draws are graded on one side only"
        found = (float(row["minus_dense_low"]), float(row["minus_dense_high"]))
        assert found == (comparison.interval.low, comparison.interval.high)
        bounds = (float(row["minus_dense_if_missing_low"]), float(row["minus_dense_if_missing_high"]))
        assert bounds == (comparison.lowest, comparison.highest)
        assert bounds[0] < bounds[1]
        assert (cells["dense", limit]["pairs"], cells["dense", limit]["minus_dense_low"]) == ("", "")


def test_curves_give_the_interval_of_their_mean(half_pruned: TinySweep) -> None:
    _, _, curves = report(half_pruned)
    cells = read_results(half_pruned.store, half_pruned.resolve_grid()).cells
    dense, pruned = ({c.limit: c.outcomes for c in cells if c.variant.dense is side} for side in (True, False))
    mean = compare_curves(pruned, dense).mean
    assert [int(row["token_limit"]) for row in curves] == [8, 32]
    assert {(float(row["mean_low"]), float(row["mean_high"])) for row in curves} == {
        (mean.interval.low, mean.interval.high)
    }
    assert {(float(row["mean_if_missing_low"]), row["missing_pairs"]) for row in curves} == {(mean.lowest, "8")}
