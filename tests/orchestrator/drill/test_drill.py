"""The drill: what it makes of a grid, and a whole drill."""

import json
from pathlib import Path

import pytest
import yaml

from orchestrator.drill.drill import join, run_drill, shrink
from orchestrator.drill.faults import ProcessKind
from orchestrator.grid.parse import parse_grid, read_grid
from orchestrator.grid.source import GridSource
from tests.support.drilled_demo import ROOT, SWEEP

GRIDS = sorted((ROOT / "examples").glob("*/grid.yaml"))


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.parent.name)
def test_drill_of_an_example_is_a_valid_grid_that_is_small_and_greedy(file: Path) -> None:
    grid = read_grid(file)
    small = parse_grid(GridSource("drill", shrink(grid.source.value, ["some.jsonl"], 8, "sqlite:///x.db"), {}))
    assert 1 <= len(small.variants) <= 3
    assert {v.model.path for v in small.variants} == {grid.variants[0].model.path}
    assert {v.spec.method for v in small.variants} <= {v.spec.method for v in grid.variants}
    assert small.sampling.temperature == 0
    assert len(small.token_limits) <= 2
    assert max(small.token_limits) <= 64
    assert small.runtime.attempts == grid.runtime.attempts + 8, "draws outlive the kills that are ordered"
    assert small.runtime.tracking_uri == "sqlite:///x.db", "the user's own MLflow is left alone"


def test_store_below_a_bucket_keeps_the_options_of_its_place() -> None:
    assert join("s3://bucket/mine?region=x", "drills/1") == "s3://bucket/mine/drills/1?region=x"
    assert join("/shared/mine/", "drills/1") == "/shared/mine/drills/1"


def test_whole_drill_passes_and_tells_of_every_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    grid = read_grid(ROOT / "examples" / "tiny" / "grid.yaml")
    benchmark = str(ROOT / "examples" / "tiny" / "chain-mixed.jsonl")
    small = shrink(grid.source.value, [benchmark], 3, f"sqlite:///{tmp_path / 'mlflow.db'}")
    small["variants"] = small["variants"][:1]
    small["runtime"]["commit_seconds"] = 0.001
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(small))))
    command = [*SWEEP, str(tmp_path / "grid.yaml"), "--ledger", str(tmp_path / "ledger")]
    done = run_drill(command, str(tmp_path), tmp_path, kills=3, seed=12)  # a grader's child, the driver, an engine
    assert not isinstance(done, int), (tmp_path / "undisturbed.log").read_text()
    told = done.lines()
    assert done.passed, (told, (tmp_path / "disturbed.log").read_text())
    assert len(done.run.delivered) + len(done.run.undelivered) == 3
    assert any(one.planned.kind is ProcessKind.DRIVER for one in done.run.delivered)
    assert sum(line.startswith("killed: ") for line in told) == len(done.run.delivered)
    assert "compared 100 draws" in "\n".join(told)
    assert told[-1] == "the same as the undisturbed run"
