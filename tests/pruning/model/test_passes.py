"""Passes: what is not finite is refused by layer, and half precision stays close."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.model.checkpoint import Checkpoint
from pruning.patch.patch import Patch
from pruning.prune import prune
from pruning.spec import CalibrationSpec, PruneSpec
from tests.pruning.conftest import make_checkpoint


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


@pytest.mark.parametrize("allocator", ["uniform", "owl", "layerif"])
def test_embedding_that_is_not_finite_is_named_with_its_first_token(copy, calibration, tmp_path, allocator):
    tensors = load_file(copy / "model.safetensors")
    used = sorted(set(np.load(calibration.data).flatten().tolist()))
    tensors["model.embed_tokens.weight"][used[3], 0] = float("nan")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    other = CalibrationSpec(str(tmp_path / "validation.npy")) if allocator == "layerif" else None
    np.save(tmp_path / "validation.npy", np.load(calibration.data)[:2])
    spec = PruneSpec("wanda", allocator, 0.2, calibration=calibration, influence_validation=other)
    message = rf"model\.embed_tokens\.weight has NaN or infinite weights for 1 of the \d+ .*, first token {used[3]};"
    with pytest.raises(ValueError, match=message):
        prune(copy, spec, tmp_path / "patch", payload={})


@pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.weight"])
def test_norm_or_head_that_is_not_finite_is_named(copy, calibration, tmp_path, name):
    tensors = load_file(copy / "model.safetensors")
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    np.save(tmp_path / "validation.npy", np.load(calibration.data)[:2])
    other = CalibrationSpec(str(tmp_path / "validation.npy"))
    spec = PruneSpec("magnitude", "layerif", 0.2, calibration=calibration, influence_validation=other)
    with pytest.raises(ValueError, match=rf"{name} has NaN or infinite weights; .* download it again"):
        prune(copy, spec, tmp_path / "patch", payload={})


def test_activations_that_overflow_are_refused_by_layer(copy, calibration, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e38
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    spec = PruneSpec("wanda", sparsity=0.2, calibration=calibration)
    with pytest.raises(ValueError, match="layer 1: its activations are NaN or infinite"):
        prune(copy, spec, tmp_path / "out" / "patch", payload={})
    assert list((tmp_path / "out").iterdir()) == []


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
