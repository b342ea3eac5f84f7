"""Every grid in examples/ is read, resolved and planned, with stand-ins for what has to be downloaded or made."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.built_in import BUILT_IN
from orchestrator.grid.parse import parse_grid
from orchestrator.grid.source import GridSource, read_yaml
from orchestrator.plan.plan import StoredState, make_plan
from orchestrator.plan.resolve import resolve_grid
from tests.support import ROOT
from tests.support.stand_in import make_stand_in

GRIDS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.yaml"))
BLOCKS = {"simplescaling/s1.1-7B": 28, "Qwen/Qwen3-8B": 36, "examples/smollm2/model": 30}
"""Of the models that a checkout has not."""
VARIANTS = {"examples/paper/grid.yaml": 30, "examples/smollm2/grid.yaml": 9, "examples/tiny/grid.yaml": 5}


def with_stand_ins(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The grid with a model of as many blocks, and a benchmark of the same columns, for each that is not here."""
    models = []
    for index, entry in enumerate(value["models"]):
        given = {"path": entry} if isinstance(entry, str) else entry
        name = given["path"].partition("@")[0]
        if name in BLOCKS:
            given = given | {"path": str(make_stand_in(folder / f"model-{index}", BLOCKS[name], 32_768, seed=index))}
        models.append(given)
    benchmarks = []
    for name in value["benchmarks"]:
        if name in BUILT_IN:
            data = BUILT_IN[name]
            row = {data.problem: "What is 2 + 2?", data.answer: "4"} | {column: column for column in data.incorrect}
            file = folder / f"{name}.jsonl"
            file.write_text(json.dumps(row) + "\n")
            benchmarks.append({"name": f"{name}={file}", "rows": "any"})
        else:
            benchmarks.append(name)
    text = folder / "text.jsonl"
    text.write_text('{"text": "any"}\n')
    sources = value["calibration"] if isinstance(value["calibration"], list) else [value["calibration"]]
    calibration = [one | {"data": str(text)} if "smollm2/text" in one["data"] else one for one in sources]
    return value | {"models": models, "benchmarks": benchmarks, "calibration": calibration}


def test_no_example_is_forgotten() -> None:
    assert set(GRIDS) == set(VARIANTS)


@pytest.mark.parametrize("name", GRIDS)
def test_example_grid_is_planned(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    source = read_yaml(ROOT / name)
    resolved = resolve_grid(parse_grid(GridSource(name, with_stand_ins(source.value, tmp_path), source.lines)))
    plan = make_plan(resolved, StoredState())
    assert len(plan.patches) == VARIANTS[name]
    assert plan.draws_owed > 0
    assert ["no cap of their own" in warning for warning in resolved.warnings] == [True, True] * ("paper" in name)
    if name == "examples/smollm2/grid.yaml":
        assert {one.label.rpartition(", ")[2] for one in resolved.awaiting} == {"own-traces"}
        assert len(resolved.awaiting) == 6
