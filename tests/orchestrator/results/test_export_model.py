"""`export-model`: a stored variant as a folder that other libraries load, whole or not at all, and back again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.__main__ import main
from orchestrator.results.cells import read_results
from pruning.model.checkpoint import Checkpoint
from pruning.patch.patch import Patch
from tests.support import ROOT
from tests.support.builders import TINY, TinySweep
from tests.support.checkpoints import edited_checkpoint, halved

MODEL = TINY / "model"
CALIBRATION = {"data": str(TINY / "calibration.jsonl"), "samples": 8, "tokens": 96}
PRUNED = {
    "magnitude": ({"method": "magnitude", "sparsity": 0.5}, "magnitude + uniform at 0.5"),
    "sparsegpt": ({"method": "sparsegpt", "sparsity": 0.4, "calibration": CALIBRATION}, "sparsegpt + uniform at 0.4"),
    "shortgpt": ({"method": "shortgpt", "blocks": 1, "calibration": CALIBRATION}, "shortgpt -1 blocks"),
}


def export(sweep: TinySweep, variant: str, to: Path, *options: str) -> int:
    return main(["export-model", str(sweep.write_grid()), variant, "--to", str(to), *options])


def stored_patch(sweep: TinySweep, label: str) -> Patch:
    (patch_id,) = {variant.patch_id for variant in sweep.resolve_grid().variants if variant.label == label}
    return Patch.open(sweep.store.fetch_patch(patch_id, sweep.folder / "cache"))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(40)[None]).logits
    return found


@pytest.mark.parametrize("method", PRUNED)
def test_export_computes_what_base_and_patch_do_and_comes_back_as_the_same_weights(
    method: str, sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, label = PRUNED[method]
    sweep.variants.append(entry)
    assert sweep.run() == "done"
    out = sweep.folder / "out" / method
    assert export(sweep, label, out) == 0
    patch, exported = stored_patch(sweep, label), Checkpoint.open(out)
    assert exported.tensor_digests() == patch.manifest.tensors
    assert f"digest {exported.digest()[:12]}" in capsys.readouterr().err
    assert exported.num_layers == len(patch.manifest.kept_layers)

    loaded = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    ours = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
    ours.load_state_dict(dict(patch.weights(Checkpoint.open(MODEL))))
    assert torch.equal(logits(loaded), logits(ours))
    assert AutoTokenizer.from_pretrained(out).encode("1+2=") == AutoTokenizer.from_pretrained(MODEL).encode("1+2=")
    assert (out / "generation_config.json").read_bytes() == (MODEL / "generation_config.json").read_bytes()

    sweep.variants = [{"method": "dense"}, {"method": "checkpoint", "path": str(out), "label": "back"}]
    assert sweep.run() == "done"
    back = stored_patch(sweep, "back").manifest
    assert (back.weights_digest, back.realised) == (patch.manifest.weights_digest, patch.manifest.realised)
    (variant,) = (one for one in sweep.resolve_grid().variants if one.label == "back")
    assert variant.patch_payload["spec"]["path"] in (out / "README.md").read_text(), "the card has its name"


def test_card_has_the_numbers_of_the_store(sweep: TinySweep) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert sweep.run() == "done"
    assert export(sweep, "magnitude + uniform at 0.5", sweep.folder / "out") == 0
    cells = [cell for cell in read_results(sweep.store, sweep.resolve_grid()).cells if not cell.variant.dense]
    card = ModelCard.load(sweep.folder / "out" / "README.md")
    found = {(one.dataset_type, one.dataset_config): one for one in card.data.eval_results}
    assert len(found) == len(cells) == 2
    for cell in cells:
        one, interval = found[cell.benchmark, str(cell.limit)], cell.metrics.interval
        assert interval is not None
        assert one.metric_value == cell.metrics.accuracy
        assert one.metric_args == {"confidence_interval_95": [interval.low, interval.high]}


def test_any_patch_of_the_store_is_exported_by_its_id(sweep: TinySweep) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert sweep.run() == "done"
    patch = stored_patch(sweep, "magnitude + uniform at 0.5")
    sweep.variants.pop()  # the grid names it no more
    assert export(sweep, patch.folder.name, sweep.folder / "out") == 0
    assert Checkpoint.open(sweep.folder / "out").tensor_digests() == patch.manifest.tensors
    card = (sweep.folder / "out" / "README.md").read_text()
    assert "# model: magnitude + uniform at 0.5" in card
    assert "This grid does not evaluate the variant." in card
    other = edited_checkpoint(MODEL, sweep.folder / "other", halved)
    sweep.model = other
    assert export(sweep, patch.folder.name, sweep.folder / "again") == 2


@pytest.fixture
def made(sweep: TinySweep) -> TinySweep:
    assert sweep.run() == "done"
    return sweep


def test_folder_with_content_is_refused_and_an_empty_one_is_taken(
    made: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    out = made.folder / "out"
    out.mkdir()
    assert export(made, "dense", out) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert export(made, "dense", out) == 2
    assert f"error: --to {out}: already has content; give a new or an empty folder" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    file = made.folder / "grid.yaml"
    assert export(made, "dense", file / "out") == 2
    assert f"error: --to {file / 'out'}: cannot be written: " in capsys.readouterr().err


def test_variant_that_is_unknown_or_not_made_yet_is_named(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(sweep, "dens", sweep.folder / "out") == 2
    assert "VARIANT 'dens': " in (said := capsys.readouterr().err)
    assert "Did you mean 'dense'" in said
    assert export(sweep, "dense", sweep.folder / "out") == 2
    assert re.search(r"has no patch of .*: dense'.* run `python -m orchestrator.sweep", capsys.readouterr().err)
    assert not (sweep.folder / "out").exists()


def test_damaged_patch_is_told_and_nothing_is_written(made: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    made.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert made.run() == "done"
    folder = stored_patch(made, "magnitude + uniform at 0.5").folder
    layer = next(folder.glob("layer-*"))
    layer.write_bytes(layer.read_bytes()[:-1] + b"\x00")
    assert export(made, "magnitude + uniform at 0.5", made.folder / "out") == 2
    said = capsys.readouterr().err
    assert f"{layer.name}: damaged" in said
    assert f"Delete the folder patches/{folder.name}" in said
    assert not (made.folder / "out").exists()


KILLED_AT_ITS_CARD = """
import os, signal, sys
from orchestrator.__main__ import main

def die(event, arguments):
    if event == "open" and str(arguments[0]).endswith("README.md"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
main(sys.argv[1:])
"""


def test_killed_export_leaves_no_folder_and_the_next_clears_what_it_left(made: TinySweep) -> None:
    """It is killed when all weights are written."""
    out = made.folder / "out" / "dense"
    command = ["export-model", str(made.write_grid()), "dense", "--to", str(out)]
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_ITS_CARD, *command], cwd=ROOT, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    (left,) = out.parent.iterdir()
    assert left.name.startswith(".dense.")
    assert (left / "model.safetensors").exists()
    assert main(command) == 0
    assert list(out.parent.iterdir()) == [out]
    assert Checkpoint.open(out).digest() == Checkpoint.open(MODEL).digest()
