"""Writing a patch is deterministic, and what does not read back as it was pruned is no patch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pruning.methods.prune_block import PrunedBlock
from pruning.model.architecture import EMBEDDING, LINEARS, PARTS
from pruning.model.checkpoint import Checkpoint
from pruning.model.tensors import layer_tensors
from pruning.patch.manifest import Canary, Manifest, read_manifest
from pruning.patch.patch import Patch, digest_tensor
from pruning.patch.writer import PatchWriter
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


def test_two_runs_write_the_same_bytes(patch, checkpoints, calibration, tmp_path):
    again = prune(checkpoints["qwen3"], SPECS["wanda"](calibration), tmp_path / "again", payload={"k": [1]})
    first = read_manifest(patch)
    assert replace(again, seconds=0, peak_memory_bytes=0) == replace(first, seconds=0, peak_memory_bytes=0)


def begun(base: Checkpoint, folder: Path) -> tuple[PatchWriter, Manifest]:
    """A writer to which every block was added with half of its weights, and what its manifest will say."""
    writer = PatchWriter(folder, base)
    for index in range(base.num_layers):
        tensors = layer_tensors(base, index)
        weights = {linear: tensors[f"{linear}.weight"] for linear in LINEARS}
        keep = {linear: weight.abs() > weight.abs().median() for linear, weight in weights.items()}
        writer.add(index, weights, PrunedBlock(keep, {}), dict.fromkeys(PARTS, 0.5))
    return writer, draft_of(base, writer)


def draft_of(base: Checkpoint, writer: PatchWriter) -> Manifest:
    return Manifest(
        payload={}, base=base.digest(), spec=PruneSpec("magnitude", sparsity=0.5), requested=0.5, realised=0.5,
        kept_layers=tuple(range(base.num_layers)), layers=tuple(writer.layers), tensors={}, canary=Canary((), ()),
        calibration={}, evidence={}, files={}, seconds=0, peak_memory_bytes=0,
    )  # fmt: skip


def test_manifest_names_every_tensor_as_an_independent_decoding_does(checkpoints, tmp_path):
    base = Checkpoint.open(checkpoints["qwen3"])
    writer, draft = begun(base, tmp_path)
    with writer:
        manifest = writer.finish(draft, "cpu")
    tensors = dict(Patch.open(tmp_path).weights(base))
    assert manifest.tensors == {name: digest_tensor(tensor) for name, tensor in tensors.items()}
    assert manifest.tensors[EMBEDDING] == base.tensor_digests()[EMBEDDING]


@pytest.mark.parametrize(
    "name", [EMBEDDING, "model.layers.2.mlp.up_proj.weight", "model.layers.2.input_layernorm.weight"]
)
def test_weights_that_read_back_otherwise_make_no_patch(name, tmp_path):
    base = Checkpoint.open(make_checkpoint(tmp_path / "model", "qwen3"))
    (tmp_path / "patch").mkdir()
    writer, draft = begun(base, tmp_path / "patch")
    header = base.tensors[name]
    with header.file.open("r+b") as file:  # a disk that forgets
        file.seek(header.begin)
        file.write(bytes(header.end - header.begin))
    with writer, pytest.raises(ValueError, match=f"{name} does not decode to what was pruned"):
        writer.finish(draft, "cpu")
    assert not (tmp_path / "patch" / "manifest.json").exists()


def test_block_that_was_pruned_from_other_weights_than_the_file_has_makes_no_patch(checkpoints, tmp_path):
    base = Checkpoint.open(checkpoints["qwen3"])
    tensors = layer_tensors(base, 0)
    weights = {linear: tensors[f"{linear}.weight"] for linear in LINEARS}
    keep = {linear: torch.ones_like(weight, dtype=torch.bool) for linear, weight in weights.items()}
    weights["mlp.up_proj"][3, 5] += 1  # memory that forgets
    with PatchWriter(tmp_path, base) as writer:
        writer.add(0, weights, PrunedBlock(keep, {}), dict.fromkeys(PARTS, 0.0))
        with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj\.weight does not decode to what was pruned"):
            writer.finish(draft_of(base, writer), "cpu")
