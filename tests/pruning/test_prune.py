"""The walk: streamed blocks compute what the whole model does, jobs share without interfering, errors leave nothing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.model.architecture import LINEARS
from pruning.model.blocks import BATCH_TOKENS, Blocks, batches
from pruning.model.checkpoint import Checkpoint
from pruning.model.passes import embedded
from pruning.model.tensors import layer_tensors
from pruning.patch.patch import Patch
from pruning.prune import PruneJob, prune, prune_many
from pruning.spec import CalibrationSpec, PruneSpec
from tests.pruning.conftest import SHAPES, make_checkpoint
from tests.support import reference as naive

CONTENT = ("spec", "tensors", "layers", "files", "canary", "kept_layers", "evidence", "calibration")


def content(manifest):
    return {name: getattr(manifest, name) for name in CONTENT}


@pytest.mark.parametrize("kind", SHAPES)
def test_streamed_blocks_equal_the_whole_model(checkpoints, windows_file, kind):
    base = Checkpoint.open(checkpoints[kind])
    windows = np.load(windows_file)
    model = naive.whole_model(checkpoints[kind])
    with torch.no_grad():
        states = model(torch.from_numpy(windows), output_hidden_states=True).hidden_states
    blocks = Blocks(base.config, torch.float32, "cpu")
    hidden = embedded(base, windows, torch.float32, "cpu")
    for layer in range(base.num_layers):
        torch.testing.assert_close(hidden, states[layer], atol=1e-5, rtol=1e-4)
        with blocks.resident(layer, layer_tensors(base, layer)) as block, torch.no_grad():
            hidden = blocks.forward(block, layer, hidden)
        assert all(parameter.is_meta for parameter in block.parameters())


@pytest.mark.parametrize("kind", SHAPES)
def test_the_prunable_linears_are_all_the_linears_of_a_block(checkpoints, kind):
    block = naive.whole_model(checkpoints[kind]).model.layers[0]
    found = {name for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
    assert found == set(LINEARS)


def test_batches_cover_every_window_once():
    for windows, tokens in ((1, 1), (7, BATCH_TOKENS), (129, 2048), (3, 10 * BATCH_TOKENS)):
        covered = [index for part in batches(windows, tokens) for index in range(windows)[part]]
        assert covered == list(range(windows))


def test_many_jobs_give_what_each_gives_alone(checkpoints, calibration, tmp_path):
    specs = [
        PruneSpec("dense"),
        PruneSpec("magnitude", "owl", 0.2, calibration=calibration),
        PruneSpec("magnitude", "owl", 0.4, owl_m=3.0, calibration=calibration),
        PruneSpec("wanda", sparsity=0.2, propagate="dense", calibration=calibration),
        PruneSpec("wanda", "owl", 0.2, calibration=calibration),
        PruneSpec("wanda", sparsity=0.2, group="model", propagate="dense", calibration=calibration),
        PruneSpec("sparsegpt", sparsity=0.2, propagate="dense", calibration=calibration),
        PruneSpec("shortgpt", blocks=1, calibration=calibration),
        PruneSpec("shortgpt", blocks=2, calibration=calibration),
    ]
    together = prune_many(
        checkpoints["mistral"], [PruneJob(spec, tmp_path / f"many{i}", {"n": i}) for i, spec in enumerate(specs)]
    )
    for i, spec in enumerate(specs):
        alone = prune(checkpoints["mistral"], spec, tmp_path / f"one{i}", payload={"n": i})
        assert content(alone) == content(together[i])
        assert Patch.open(tmp_path / f"many{i}").manifest == together[i]


def test_influence_is_computed_once_for_all_sparsities(checkpoints, windows_file, tmp_path, own_cache):
    rows = np.random.default_rng(3).integers(0, 97, (3, 24))
    np.save(tmp_path / "validation.npy", rows)
    train, validation = CalibrationSpec(str(windows_file)), CalibrationSpec(str(tmp_path / "validation.npy"))

    def job(sparsity):
        said: list[str] = []
        spec = PruneSpec("magnitude", "layerif", sparsity, influence_train=train, influence_validation=validation)
        folder = tmp_path / f"patch-{sparsity}"
        return prune(checkpoints["llama"], spec, folder, payload={}, progress=said.append), said

    first, said_first = job(0.2)
    second, said_second = job(0.4)
    assert any("gradients" in text for text in said_first)
    assert not any("gradients" in text for text in said_second)
    assert first.evidence == second.evidence
    means = [sum(layer.requested for layer in manifest.layers) / 4 for manifest in (first, second)]
    assert means == pytest.approx([0.2, 0.4])
    protected = int(np.argmax(first.evidence["influence_mlp"]))
    parts = [layer.requested_parts["mlp"] for layer in first.layers]
    assert parts[protected] == min(parts)


def test_the_paper_preset_with_layerif_differs_from_uniform_in_three_ways(checkpoints, windows_file, tmp_path):
    np.save(tmp_path / "validation.npy", np.random.default_rng(3).integers(0, 97, (3, 24)))
    spec = PruneSpec(
        "wanda",
        "layerif",
        0.2,
        preset="paper",
        calibration=CalibrationSpec(str(windows_file)),
        influence_validation=CalibrationSpec(str(tmp_path / "validation.npy")),
    )
    manifest = prune(checkpoints["qwen2"], spec, tmp_path / "patch", payload={})
    assert (manifest.spec.group, manifest.spec.propagate, manifest.spec.bounds) == ("matrix", "dense", "clamp")
    assert len({round(layer.requested_parts["attention"], 6) for layer in manifest.layers}) > 1
    assert set(manifest.calibration) == {"calibration", "influence_train", "influence_validation"}


@pytest.fixture
def copy(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_layer(copy, tmp_path, value):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][1, 3] = value
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"layer 2: mlp\.up_proj\.weight has NaN or infinite weights"):
        prune(copy, PruneSpec("magnitude", sparsity=0.2), tmp_path / "out" / "patch", payload={})
    assert list((tmp_path / "out").iterdir()) == []


def test_activations_that_overflow_are_refused_by_layer(copy, calibration, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e38
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    spec = PruneSpec("wanda", sparsity=0.2, calibration=calibration)
    with pytest.raises(ValueError, match="layer 1: its output activations are NaN or infinite"):
        prune(copy, spec, tmp_path / "out" / "patch", payload={})
    assert list((tmp_path / "out").iterdir()) == []


def test_a_committed_patch_is_not_overwritten(checkpoints, tmp_path):
    spec = PruneSpec("magnitude", sparsity=0.2)
    prune(checkpoints["llama"], spec, tmp_path / "patch", payload={})
    with pytest.raises(ValueError, match="already exists"):
        prune(checkpoints["llama"], spec, tmp_path / "patch", payload={})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PruneSpec("magnitude", pattern="2:4"), r"down_proj.weight has 77 inputs, not a multiple of 4"),
        (PruneSpec("shortgpt", blocks=4), "cannot remove 4 of 4 blocks"),
        (PruneSpec("shortgpt", blocks=9), "cannot remove 9 of 4 blocks"),
    ],
)
def test_what_this_checkpoint_cannot_give_is_refused_before_any_work(checkpoints, calibration, tmp_path, spec, message):
    from dataclasses import replace

    said: list[str] = []
    data = calibration if spec.method == "shortgpt" else None
    with pytest.raises(ValueError, match=message):
        prune(checkpoints["llama"], replace(spec, calibration=data), tmp_path / "p", payload={}, progress=said.append)
    assert said == []


def test_bfloat16_statistics_stay_close_to_float32(tmp_path, windows_file):
    model_dir = make_checkpoint(tmp_path / "bf16", "qwen2", torch.bfloat16)
    masks = []
    for compute in ("stored", "float32"):
        spec = PruneSpec("wanda", sparsity=0.5, calibration=CalibrationSpec(str(windows_file), compute=compute))
        prune(model_dir, spec, tmp_path / compute, payload={})
        weights = Patch.open(tmp_path / compute).weights(Checkpoint.open(model_dir))
        masks.append({name: tensor == 0 for name, tensor in weights if "_proj.weight" in name})
    agree = [(masks[0][name] == masks[1][name]).float().mean() for name in masks[0]]
    assert 0.97 < float(min(agree)) < 1
