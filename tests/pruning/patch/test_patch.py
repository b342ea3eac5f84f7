"""Patches: what they promise, what they refuse, and that an export is an ordinary checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning.model.checkpoint import Checkpoint
from pruning.model.tree_digest import tree_digest
from pruning.patch.manifest import read_manifest
from pruning.patch.patch import Patch, digest_tensor, export
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.pruning.conftest import SHAPES, make_checkpoint

SPECS = {
    "dense": lambda data: PruneSpec("dense"),
    "wanda": lambda data: PruneSpec("wanda", sparsity=0.2, calibration=data),
    "sparsegpt": lambda data: PruneSpec("sparsegpt", sparsity=0.2, calibration=data),
    "shortgpt": lambda data: PruneSpec("shortgpt", blocks=2, calibration=data),
}


@pytest.fixture(scope="module")
def patch(checkpoints, calibration, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "wanda"
    prune(checkpoints["qwen3"], PruneSpec("wanda", sparsity=0.2, calibration=calibration), folder, payload={"k": [1]})
    return folder


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


def test_half_precision_checkpoints_keep_their_dtype(tmp_path, calibration):
    for dtype in (torch.bfloat16, torch.float16):
        model_dir = make_checkpoint(tmp_path / str(dtype), "llama", dtype)
        manifest = prune(model_dir, SPECS["sparsegpt"](calibration), tmp_path / f"{dtype}-patch", payload={})
        tensors = dict(Patch.open(tmp_path / f"{dtype}-patch").weights(Checkpoint.open(model_dir)))
        assert {tensor.dtype for tensor in tensors.values()} == {dtype}
        assert {name: digest_tensor(tensor) for name, tensor in tensors.items()} == manifest.tensors
        assert {name: tree_digest(tensor) for name, tensor in tensors.items()} == manifest.trees


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
