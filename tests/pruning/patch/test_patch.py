"""Patches: what they promise, what they refuse, and that an export is an ordinary checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning.model.architecture import config_after_removal, config_of_length
from pruning.model.checkpoint import Checkpoint
from pruning.patch.canary import canary_logprobs
from pruning.patch.patch import Patch, digest_tensor, export, read_manifest
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.pruning.conftest import SHAPES, make_checkpoint


@pytest.fixture(scope="module")
def patch(checkpoints, calibration, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "wanda"
    prune(checkpoints["qwen3"], PruneSpec("wanda", sparsity=0.2, calibration=calibration), folder, payload={"k": [1]})
    return folder


SPECS = {
    "dense": lambda data: PruneSpec("dense"),
    "wanda": lambda data: PruneSpec("wanda", sparsity=0.2, calibration=data),
    "sparsegpt": lambda data: PruneSpec("sparsegpt", sparsity=0.2, calibration=data),
    "shortgpt": lambda data: PruneSpec("shortgpt", blocks=2, calibration=data),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("method", SPECS)
def test_export_loads_in_transformers_and_computes_what_the_manifest_says(
    checkpoints, calibration, tmp_path, kind, method
):
    manifest = prune(checkpoints[kind], SPECS[method](calibration), tmp_path / "patch", payload={})
    export(checkpoints[kind], tmp_path / "patch", tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    assert len(model.model.layers) == len(manifest.kept_layers)
    ids = torch.tensor(manifest.canary.token_ids)
    with torch.no_grad():
        logprobs = model(ids[None]).logits[0].log_softmax(-1)
    expected = logprobs[:-1].gather(1, ids[1:, None])[:, 0]
    np.testing.assert_allclose(manifest.canary.logprobs, expected.numpy(), atol=2e-4)
    assert len(ids) == min(192, Checkpoint.open(checkpoints[kind]).context_length)
    exported = Checkpoint.open(tmp_path / "export")
    assert exported.tensor_digests() == manifest.tensors
    types = Checkpoint.open(checkpoints[kind]).config.get("layer_types")
    if types is not None:
        assert exported.config["layer_types"] == [types[layer] for layer in manifest.kept_layers]


@pytest.mark.parametrize("kind", SHAPES)
def test_configuration_for_so_many_blocks_is_that_of_every_patch_which_keeps_so_many(checkpoints, kind):
    config = Checkpoint.open(checkpoints[kind]).config
    assert config_of_length(config, 4) == config
    if kind == "qwen2":  # its first two blocks see everything, the others a window
        with pytest.raises(ValueError, match=r"differ \(full_attention, sliding_attention\).*3 of 4 blocks"):
            config_of_length(config, 3)
        return
    for kept in combinations(range(4), 3):
        assert config_of_length(config, 3) == config_after_removal(config, kept)


def test_half_precision_checkpoints_keep_their_dtype(tmp_path, calibration):
    for dtype in (torch.bfloat16, torch.float16):
        model_dir = make_checkpoint(tmp_path / str(dtype), "llama", dtype)
        manifest = prune(model_dir, SPECS["sparsegpt"](calibration), tmp_path / f"{dtype}-patch", payload={})
        tensors = dict(Patch.open(tmp_path / f"{dtype}-patch").weights(Checkpoint.open(model_dir)))
        assert {tensor.dtype for tensor in tensors.values()} == {dtype}
        assert {name: digest_tensor(tensor) for name, tensor in tensors.items()} == manifest.tensors


def test_manifest_survives_the_disk(patch):
    manifest = read_manifest(patch)
    assert manifest.payload == {"k": [1]}
    assert manifest.spec.group == "row"
    zeros = sum(layer.realised for layer in manifest.layers) / len(manifest.layers)
    assert manifest.realised == pytest.approx(zeros)
    assert manifest.bytes == sum(file.stat().st_size for file in patch.glob("layer-*"))
    assert all(set(layer.modules) >= {"self_attn.q_proj", "mlp.down_proj"} for layer in manifest.layers)


def test_every_flipped_byte_is_refused_by_file_name(patch, tmp_path):
    for victim in sorted(entry.name for entry in patch.iterdir()):
        size = (patch / victim).stat().st_size
        for position in (8, size // 2, size - 2):
            copy = tmp_path / f"{victim}-{position}"
            shutil.copytree(patch, copy)
            content = bytearray((copy / victim).read_bytes())
            content[position] ^= 0x10
            (copy / victim).write_bytes(content)
            with pytest.raises(ValueError, match=victim):
                Patch.open(copy)


def test_missing_and_foreign_files_are_refused_by_name(patch, tmp_path):
    shutil.copytree(patch, tmp_path / "missing")
    (tmp_path / "missing" / "layer-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"layer-00002\.safetensors: missing"):
        Patch.open(tmp_path / "missing")
    shutil.copytree(patch, tmp_path / "foreign")
    (tmp_path / "foreign" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"notes\.txt: not part of the patch"):
        Patch.open(tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"manifest\.json: missing"):
        read_manifest(tmp_path)


def test_another_format_is_refused_before_anything_else_is_read(patch, tmp_path):
    shutil.copytree(patch, tmp_path / "old")
    (tmp_path / "old" / "manifest.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="format 0, this version reads 1"):
        read_manifest(tmp_path / "old")


def test_a_base_that_differs_in_one_weight_is_refused(patch, checkpoints, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoints["qwen3"], copy)
    Patch.open(patch).weights(Checkpoint.open(copy))  # a copy is the same checkpoint
    shard = sorted(copy.glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="give the checkpoint it was made from"):
        Patch.open(patch).weights(Checkpoint.open(copy))


def test_two_runs_write_the_same_bytes(patch, checkpoints, calibration, tmp_path):
    again = prune(checkpoints["qwen3"], SPECS["wanda"](calibration), tmp_path / "again", payload={"k": [1]})
    first = read_manifest(patch)
    assert replace(again, seconds=0, peak_memory_bytes=0) == replace(first, seconds=0, peak_memory_bytes=0)


def test_canary_tells_one_flipped_sign(checkpoints, patch):
    base, opened = Checkpoint.open(checkpoints["qwen3"]), Patch.open(patch)
    tensors = dict(opened.weights(base))
    tensors["model.layers.1.mlp.up_proj.weight"][0] *= -1
    logprobs = canary_logprobs(opened.config(base), tensors.items(), opened.manifest.canary.token_ids)
    assert np.abs(np.subtract(logprobs, opened.manifest.canary.logprobs)).max() > 1e-3
