"""What resolving a grid computes from the models and data that it names. Errors are in grid/test_errors.py."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from orchestrator.grid.parse import read_grid
from orchestrator.plan.resolve import resolve_grid
from orchestrator.sweep import main
from pruning.model.checkpoint import Checkpoint
from tests.pruning.conftest import make_checkpoint
from tests.support import ROOT
from tests.support.builders import TinySweep
from tests.support.checkpoints import edited_checkpoint, halved, without_block
from tests.support.fake_hub import MODEL, REPOSITORY, fill_cache
from tests.support.grids import TINY, edited

TINY_MODEL = ROOT / "examples" / "tiny" / "model"


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


# --- checkpoints of one's own -----------------------------------------------------------------------------------------


def test_checkpoint_is_named_by_its_content_and_read_by_workers_where_it_is(
    sweep: TinySweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep.folder)
    mine = edited_checkpoint(TINY_MODEL, sweep.folder / "mine", halved)
    shutil.copytree(mine, sweep.folder / "copy")
    ids = set()
    for path, label in (("mine", None), (str(mine), "half"), ("copy", "half")):
        sweep.variants = [{"method": "checkpoint", "path": path} | ({"label": label} if label else {})]
        (variant,) = sweep.resolve_grid().variants
        assert variant.label == (label or "mine")
        assert variant.spec.path == str((sweep.folder / path).absolute())
        assert variant.patch_payload["spec"] == {"method": "checkpoint", "path": Checkpoint.open(mine).digest()}
        ids.add(variant.patch_id)
    assert len(ids) == 1


def test_checkpoint_on_the_hub_travels_as_its_id_and_commit(sweep: TinySweep, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = fill_cache(sweep.folder / "hub", edited_checkpoint(TINY_MODEL, sweep.folder / "mine", halved))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(sweep.folder / "hub"))
    sweep.variants = [{"method": "checkpoint", "path": REPOSITORY}]
    (variant,) = sweep.resolve_grid().variants
    assert (variant.label, variant.spec.path) == ("tiny", MODEL)
    assert str(snapshot) not in repr(variant)


def test_checkpoint_with_fewer_blocks_needs_an_engine_of_as_many(sweep: TinySweep) -> None:
    mine = edited_checkpoint(TINY_MODEL, sweep.folder / "mine", without_block(1), num_hidden_layers=3)
    sweep.variants.append({"method": "checkpoint", "path": str(mine)})
    dense, short = sweep.resolve_grid().variants
    assert (dense.decodings[0].context.shape.layers, short.decodings[0].context.shape.layers) == (4, 3)


NO_VARIANTS = {
    "gone": (lambda folder: folder / "gone", r"path: model '.*gone': no such folder"),
    "quantised": (
        lambda folder: edited_checkpoint(TINY_MODEL, folder, quantization_config={"quant_method": "awq"}),
        "path: .* the checkpoint is quantised or compressed: it is no variant of .* list it under `models:`",
    ),
    "another shape": (
        lambda folder: make_checkpoint(folder, "qwen3"),
        "path: .*vocab_size is 97 in its config.json, and 103 in the base's: .* list it under `models:`",
    ),
    "another dtype": (
        lambda folder: edited_checkpoint(TINY_MODEL, folder, lambda ts: {n: t.float() for n, t in ts.items()}),
        "path: .* is F32, in the base BF16; save it in the base's dtype",
    ),
}


@pytest.mark.parametrize("case", NO_VARIANTS)
def test_checkpoint_that_is_no_variant_of_the_model_is_refused_before_anything_starts(
    case: str, sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = NO_VARIANTS[case]
    sweep.variants.append({"method": "checkpoint", "path": str(make(sweep.folder / "theirs"))})
    grid = sweep.write_grid()
    capsys.readouterr()
    assert main([str(grid)]) == 2
    said = capsys.readouterr().err.strip()
    assert re.fullmatch(rf"error: {grid}:\d+: {message}.*", said), said
    assert not list(sweep.store.patch_ids())


def test_checkpoint_of_one_of_several_models_is_told_where_it_belongs(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every variant applies to every model of a grid."""
    other = edited_checkpoint(TINY_MODEL, sweep.folder / "other", halved, rms_norm_eps=1e-5)
    mine = edited_checkpoint(TINY_MODEL, sweep.folder / "mine", halved)
    sweep.variants.append({"method": "checkpoint", "path": str(mine)})
    grid = sweep.write_grid()
    grid.write_text(grid.read_text().replace(f"- {sweep.model}", f"- {sweep.model}\n- {other}"))
    assert main([str(grid)]) == 2
    said = capsys.readouterr().err
    assert f"it is no variant of {other} but a model of its own" in said
    assert "If it is a variant of another model of this grid, give the two a grid of their own." in said
