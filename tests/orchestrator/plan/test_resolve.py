"""What resolving a grid computes from the models and data that it names. Errors are in grid/test_errors.py."""

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.grid.parse import read_grid
from orchestrator.plan.resolve import resolve_grid
from orchestrator.sweep import main
from tests.support import ROOT
from tests.support.grids import TINY, edited


def test_same_content_elsewhere_has_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    here = resolve_grid(read_grid(ROOT / "examples/tiny/grid.yaml"))
    shutil.copytree(ROOT / "examples/tiny", tmp_path / "moved")
    moved = tmp_path / "moved" / "grid.yaml"
    moved.write_text(TINY.replace("examples/tiny", str(tmp_path / "moved")), encoding="utf-8")
    there = resolve_grid(read_grid(moved))
    assert [v.patch_id for v in there.variants] == [v.patch_id for v in here.variants]
    assert there.payloads == here.payloads


def test_blocks_are_not_removed_where_the_windows_of_the_rest_would_depend_on_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One engine serves all variants with the same number of blocks, so it must fit whichever blocks they keep."""
    monkeypatch.chdir(ROOT)
    model = shutil.copytree("examples/tiny/model", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    windows = {"layer_types": ["full_attention", "full_attention", "sliding_attention", "sliding_attention"]}
    (model / "config.json").write_text(json.dumps(config | windows | {"sliding_window": 64}))
    short = "  - {method: shortgpt, blocks: 1}\n"
    grid = tmp_path / "grid.yaml"
    grid.write_text(edited(("[examples/tiny/model]", f"[{model}]"), ("  - {method: dense}\n", short)), encoding="utf-8")
    assert main([str(grid), "--store", str(tmp_path / "store")]) == 2
    message = capsys.readouterr().err
    assert f"error: {grid}:7: {model}: the blocks of this model differ (full_attention, sliding_attention)" in message
    assert "remove no blocks from it" in message


def test_model_under_two_paths_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    copy = shutil.copytree("examples/tiny/model", tmp_path / "copy")
    grid = tmp_path / "grid.yaml"
    grid.write_text(edited(("[examples/tiny/model]", f"[examples/tiny/model, {copy}]")), encoding="utf-8")
    assert main([str(grid), "--store", str(tmp_path / "store")]) == 2
    assert f"models[1]: {copy} has the same weights as examples/tiny/model" in capsys.readouterr().err


def test_calibration_windows_that_the_model_cannot_read_are_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    grid = tmp_path / "grid.yaml"
    grid.write_text(edited(("tokens: 128", "tokens: 513")), encoding="utf-8")
    assert main([str(grid), "--store", str(tmp_path / "store")]) == 2
    message = (
        "calibration has windows of 513 tokens, but the context of examples/tiny/model is 512; set its tokens to 512"
    )
    assert message in capsys.readouterr().err
