"""The JSON Schema of grid.yaml: generated, committed, and true of the examples."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from orchestrator.grid.json_schema import FILE, grid_schema
from orchestrator.grid.parse import read_grid
from tests.support import ROOT

GRIDS = sorted((ROOT / "examples").rglob("*grid*.yaml"))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.stem)
def test_every_example_grid_is_read_and_fits_the_schema(grid: Path) -> None:
    assert read_grid(grid).variants
    jsonschema.validate(yaml.safe_load(grid.read_text(encoding="utf-8")), grid_schema())


def test_committed_schema_is_the_generated_one_and_refuses_typos() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == grid_schema()
    value = yaml.safe_load((ROOT / "examples/tiny/grid.yaml").read_text(encoding="utf-8"))
    value["token_limit"] = value.pop("token_limits")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, grid_schema())
