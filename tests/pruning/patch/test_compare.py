"""A checkpoint that becomes a patch of its base comes out of base + patch bit for bit, whatever it changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from pruning.model.architecture import EMBEDDING, FINAL_NORM, HEAD, LINEARS
from pruning.model.checkpoint import Checkpoint
from pruning.patch.block_files import Kept
from pruning.patch.compare import compare_block
from pruning.patch.export import export
from pruning.patch.manifest import REPLACED, Manifest
from pruning.patch.patch import Patch
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.pruning.conftest import make_checkpoint
from tests.support.checkpoints import edited_checkpoint, halved, without_block

DTYPES = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
VALUES = (0.0, -0.0, 1.0, -1.0, 0.5, 3e-5, -2.0)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(DTYPES[tensor.dtype])


def compared(base: Path, theirs: Path, folder: Path) -> Manifest:
    return prune(base, PruneSpec("checkpoint", path=str(theirs)), folder, payload={})


def applied(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    return dict(Patch.open(folder).weights(Checkpoint.open(base)))


def assert_same_bits(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(bits(got[name]), bits(tensor)), name


@given(st.data(), st.sampled_from(list(DTYPES)))
def test_any_weights_become_any_others(data, dtype):
    def matrix() -> torch.Tensor:
        values = data.draw(st.lists(st.sampled_from(VALUES), min_size=12, max_size=12))
        return torch.tensor(values, dtype=dtype).view(3, 4)

    before, after = matrix(), matrix()
    block = compare_block({"x": before}, {"x": after})
    result = before.clone()
    Kept.of(block.keep["x"], block.updated.get("x"), "x" in block.signed).apply(result)
    assert torch.equal(bits(result), bits(after))
    same = bits(after) == bits(before)
    vanished, multiplied = (bits(after) == 0) | same, (bits(after) == bits(before * 0)) | same
    expected = not vanished.all() and not multiplied.all()
    assert ("x" in block.updated) == expected, "values are stored only where some weight changed"


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_weights_that_were_multiplied_by_a_mask_take_no_more_room(tmp_path, dtype):
    """What is dropped keeps its sign then: half of the zeros are -0."""
    base = make_checkpoint(tmp_path / "base", "llama", dtype)

    def multiplied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensors[name] * (tensor != 0) for name, tensor in halved(tensors).items()}

    filled = compared(base, edited_checkpoint(base, tmp_path / "filled", halved), tmp_path / "first")
    theirs = edited_checkpoint(base, tmp_path / "multiplied", multiplied)
    manifest = compared(base, theirs, tmp_path / "second")
    assert_same_bits(applied(base, tmp_path / "second"), load_file(theirs / "model.safetensors"))
    assert manifest.tensors != filled.tensors
    assert (manifest.realised, manifest.layers) == (filled.realised, filled.layers)
    assert manifest.bytes - filled.bytes < 700 * len(manifest.files), "no more than a mark for each linear"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_checkpoint_of_random_changes_comes_out_bit_for_bit(checkpoints, tmp_path_factory, data):
    """Each tensor is left alone, loses weights, or is changed; the sparsity is what was counted."""
    folder = tmp_path_factory.mktemp("random")
    draws = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    deeds = data.draw(
        st.lists(st.sampled_from(["leave", "vanish", "change", "negate zeros"]), min_size=39, max_size=39)
    )

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        changed = {}
        for deed, (name, tensor) in zip(deeds, sorted(tensors.items()), strict=True):
            gone = torch.from_numpy(draws.random(tuple(tensor.shape)) < 0.4)
            changed[name] = {
                "leave": tensor,
                "vanish": tensor.masked_fill(gone, 0),
                "change": torch.where(gone, tensor * 1.5, tensor),
                "negate zeros": tensor * ~gone,  # leaves -0 where a weight was negative
            }[deed]
        return changed

    theirs = edited_checkpoint(checkpoints["llama"], folder / "theirs", change)
    manifest = compared(checkpoints["llama"], theirs, folder / "patch")
    expected = load_file(theirs / "model.safetensors")
    assert_same_bits(applied(checkpoints["llama"], folder / "patch"), expected)
    linears = [t for name, t in expected.items() if name.endswith(tuple(f"{linear}.weight" for linear in LINEARS))]
    zeros = sum(int((tensor == 0).sum()) for tensor in linears)
    assert manifest.realised == manifest.requested == zeros / sum(tensor.numel() for tensor in linears)
    shutil.rmtree(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_pruned_export_comes_back_as_the_patch_it_came_from(tmp_path, calibration, dtype, method):
    base = make_checkpoint(tmp_path / "base", "qwen2", dtype)
    spec = PruneSpec(method, sparsity=0.5, calibration=calibration if method == "sparsegpt" else None)
    ours = prune(base, spec, tmp_path / "patch", payload={})
    export(base, tmp_path / "patch", tmp_path / "export")
    back = compared(base, tmp_path / "export", tmp_path / "back")
    assert (back.tensors, back.trees, back.canary) == (ours.tensors, ours.trees, ours.canary)
    assert back.realised == ours.realised
    assert [layer.modules for layer in back.layers] == [layer.modules for layer in ours.layers]
    if method == "magnitude":  # its weights only vanish, so the patch is as small as the one that it came from
        assert back.files == ours.files


def test_sharded_checkpoint_with_fewer_blocks_comes_out_whole(checkpoints, calibration, tmp_path):
    base = checkpoints["qwen3"]
    ours = prune(base, PruneSpec("shortgpt", blocks=2, calibration=calibration), tmp_path / "patch", payload={})
    export(base, tmp_path / "patch", tmp_path / "export")
    back = compared(base, tmp_path / "export", tmp_path / "back")
    assert (back.kept_layers, back.tensors, back.realised) == (ours.kept_layers, ours.tensors, 0.5)
    assert back.files == {}, "nothing but blocks went"


def test_untouched_checkpoint_is_a_patch_of_nothing(checkpoints, tmp_path):
    manifest = compared(checkpoints["llama"], checkpoints["llama"], tmp_path / "patch")
    assert manifest.files == {}
    assert manifest.realised == 0
    assert manifest.tensors == Checkpoint.open(checkpoints["llama"]).tensor_digests()


def test_only_what_changed_is_stored(checkpoints, tmp_path):
    """One norm, one bias, and one weight of one linear."""
    norm, bias = "model.layers.3.post_attention_layernorm.weight", "model.layers.0.self_attn.k_proj.bias"
    linear = "model.layers.1.mlp.up_proj.weight"

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[linear][5, 7] += 1
        return tensors | {norm: tensors[norm] * 2, bias: tensors[bias] - 1}

    theirs = edited_checkpoint(checkpoints["qwen2"], tmp_path / "theirs", change)
    manifest = compared(checkpoints["qwen2"], theirs, tmp_path / "patch")
    assert set(manifest.files) == {REPLACED, "layer-00001.safetensors"}
    assert set(Patch.open(tmp_path / "patch").replaced) == {norm, bias}
    stored = load_file(tmp_path / "patch" / "layer-00001.safetensors")
    assert [name for name in stored if name.startswith("values:")] == ["values:mlp.up_proj"]
    assert_same_bits(applied(checkpoints["qwen2"], tmp_path / "patch"), load_file(theirs / "model.safetensors"))


def test_embedding_norm_and_tied_head_of_an_untied_base_are_replaced(checkpoints, tmp_path):
    base = checkpoints["llama"]

    def tie(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[EMBEDDING] = tensors[EMBEDDING] * 2
        tensors[FINAL_NORM] = tensors[FINAL_NORM] + 1
        del tensors[HEAD]
        return tensors

    theirs = edited_checkpoint(base, tmp_path / "theirs", tie, tie_word_embeddings=True)
    manifest = compared(base, theirs, tmp_path / "patch")
    expected = load_file(theirs / "model.safetensors")
    assert set(Patch.open(tmp_path / "patch").replaced) == {EMBEDDING, FINAL_NORM, HEAD}
    assert_same_bits(applied(base, tmp_path / "patch"), expected | {HEAD: expected[EMBEDDING]})
    export(base, tmp_path / "patch", tmp_path / "export")
    assert Checkpoint.open(tmp_path / "export").tensor_digests() == manifest.tensors


def test_block_that_went_and_weights_that_vanished_at_once(checkpoints, tmp_path):
    """The removed block is known by the norms of the others, since no linear is as it was."""
    base = checkpoints["llama"]

    theirs = edited_checkpoint(
        base, tmp_path / "theirs", lambda found: without_block(1)(halved(found)), num_hidden_layers=3
    )
    manifest = compared(base, theirs, tmp_path / "patch")
    assert manifest.kept_layers == (0, 2, 3)
    assert manifest.realised == pytest.approx(1 / 4 + 3 / 8, abs=1e-3)
    assert_same_bits(applied(base, tmp_path / "patch"), load_file(theirs / "model.safetensors"))
    stored = load_file(tmp_path / "patch" / "layer-00002.safetensors")
    assert not [name for name in stored if name.startswith("values:")]


@pytest.mark.parametrize("name", ["model.layers.2.mlp.down_proj.weight", FINAL_NORM])
def test_checkpoint_with_a_weight_that_is_no_number_is_refused_and_leaves_nothing(checkpoints, tmp_path, name):
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[name].view(-1)[3] = torch.nan
        return tensors

    theirs = edited_checkpoint(checkpoints["llama"], tmp_path / "theirs", spoil)
    with pytest.raises(ValueError, match=f"{name} has NaN or infinite weights"):
        compared(checkpoints["llama"], theirs, tmp_path / "patch")
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]


def test_checkpoint_that_changes_while_it_is_read_becomes_no_patch(checkpoints, tmp_path):
    theirs = edited_checkpoint(checkpoints["llama"], tmp_path / "theirs", halved)

    def overwrite(_said: str) -> None:
        with (theirs / "model.safetensors").open("r+b") as file:
            file.seek(-200, 2)
            file.write(b"\x01")

    spec = PruneSpec("checkpoint", path=str(theirs))
    with pytest.raises(ValueError, match="theirs: changed while it was read"):
        prune(checkpoints["llama"], spec, tmp_path / "patch", payload={}, progress=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]


def test_replaced_tensors_are_checked_like_every_file_of_a_patch(checkpoints, tmp_path):
    theirs = edited_checkpoint(
        checkpoints["llama"], tmp_path / "theirs", lambda found: found | {FINAL_NORM: found[FINAL_NORM] + 1}
    )
    compared(checkpoints["llama"], theirs, tmp_path / "patch")
    file = tmp_path / "patch" / REPLACED
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{REPLACED}: damaged"):
        Patch.open(tmp_path / "patch")
