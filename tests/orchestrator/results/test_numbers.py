"""Everything that is computed of a cell is shown, by one name, in JSON, in CSV and in MLflow."""

import json
from dataclasses import fields, replace

import pytest

from eval.comparison import Comparison
from eval.intervals import Interval
from eval.metrics import CellMetrics, TokenSummary
from orchestrator.__main__ import main
from orchestrator.results.cells import AgainstDense, read_results
from orchestrator.results.numbers import against_numbers, cell_numbers
from tests.support.builders import TinySweep

PRUNED = {"method": "magnitude", "sparsity": 0.5}


@pytest.fixture
def compared(sweep: TinySweep) -> TinySweep:
    sweep.variants = [{"method": "dense"}, PRUNED]
    assert sweep.run() == "done"
    return sweep


def unlike(value: object) -> object:
    """Another value of the same type."""
    match value:
        case Interval():
            return replace(value, low=value.low - 7.0, high=value.high + 7.0, note="other")
        case TokenSummary():
            return TokenSummary(-1.0, -2.0, -3.0, -4)
        case dict():
            return {k: unlike(one) for k, one in value.items()}
        case None:
            return 0.25
        case float() | int():
            return value + 7
    raise AssertionError(f"no other value for {value!r}")


@pytest.mark.parametrize("name", [field.name for field in fields(CellMetrics)])
def test_every_number_of_a_cell_is_shown(name: str, compared: TinySweep) -> None:
    metrics = read_results(compared.store, compared.resolve_grid()).cells[0].metrics
    changed = replace(metrics, **{name: unlike(getattr(metrics, name))})
    assert cell_numbers(changed) != cell_numbers(metrics)


@pytest.mark.parametrize("name", [field.name for field in fields(Comparison)])
def test_every_number_of_a_comparison_is_shown(name: str, compared: TinySweep) -> None:
    (against, *_) = read_results(compared.store, compared.resolve_grid()).against_dense.values()
    changed = replace(against.comparison, **{name: unlike(getattr(against.comparison, name))})
    other = AgainstDense(changed, against.adjusted, against.if_missing)
    assert against_numbers(other) != against_numbers(against)


def test_status_tells_a_program_what_it_shows_a_person(compared: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["status", str(compared.write_grid()), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    results = read_results(compared.store, compared.resolve_grid())
    assert (told["name"], told["complete"], len(told["cells"])) == ("tiny", True, len(results.cells))
    for cell, one in zip(results.cells, told["cells"], strict=True):
        assert (one["variant"], one["token_limit"]) == (cell.variant.label, cell.limit)
        assert one["accuracy"] == cell.metrics.accuracy
        against = results.against_dense.get((cell.variant.patch_id, cell.benchmark, cell.limit))
        assert one["pairs"] == (against.comparison.pairs if against else None)
        assert one["p_holm"] == (against.adjusted.holm if against else None)
        assert one["majority"] == cell.metrics.majority
