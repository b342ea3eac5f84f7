"""The report's files: every cell as a row, with both intervals, pass@k and the comparison with dense."""

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


def test_cells_have_both_intervals_and_pass_at_k(half_pruned: TinySweep) -> None:
    status, cells, _ = report(half_pruned)
    assert status == 3, "the pruned variant lacks a seed"
    for cell in read_results(half_pruned.store, half_pruned.resolve_grid()).cells:
        row, metrics = cells[cell.variant.spec.method, cell.limit], cell.metrics
        assert metrics.analytic is not None
        assert metrics.analytic != metrics.interval
        assert float(row["analytic_low"]) == metrics.analytic.low
        assert float(row["analytic_high"]) == metrics.analytic.high
        assert float(row["pass_at_1"]) == pytest.approx(float(row["accuracy"]))
        assert row["pass_at_2"] == (str(metrics.pass_at[2]) if cell.variant.dense else "")


def test_cells_count_the_pairs_behind_a_comparison_and_give_its_analytic_interval(half_pruned: TinySweep) -> None:
    _, cells, _ = report(half_pruned)
    against = read_results(half_pruned.store, half_pruned.resolve_grid()).against_dense
    for (_, _, limit), one in against.items():
        row = cells["magnitude", limit]
        assert (row["pairs"], row["unpaired"]) == ("4", "4")
        found = (float(row["minus_dense_analytic_low"]), float(row["minus_dense_analytic_high"]))
        assert found == (one.comparison.analytic.low, one.comparison.analytic.high)
        assert (cells["dense", limit]["pairs"], cells["dense", limit]["minus_dense_analytic_low"]) == ("", "")


def test_curves_give_the_analytic_interval_of_their_mean(half_pruned: TinySweep) -> None:
    _, _, curves = report(half_pruned)
    cells = read_results(half_pruned.store, half_pruned.resolve_grid()).cells
    dense, pruned = ({c.limit: c.outcomes for c in cells if c.variant.dense is side} for side in (True, False))
    analytic = compare_curves(pruned, dense).mean.analytic
    assert [int(row["token_limit"]) for row in curves] == [8, 32]
    assert {(float(row["mean_analytic_low"]), float(row["mean_analytic_high"])) for row in curves} == {
        (analytic.low, analytic.high)
    }
