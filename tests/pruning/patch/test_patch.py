"""Patches: what they promise, and what they refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from pruning.model.checkpoint import Checkpoint
from pruning.model.tree_digest import tree_digest
from pruning.patch.manifest import read_manifest
from pruning.patch.patch import Patch, digest_tensor
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.pruning.conftest import make_checkpoint

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
