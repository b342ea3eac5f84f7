"""What a GPU makes of a patch is what the host makes of it. Without one, the same operations run on the CPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.model.checkpoint import Checkpoint
from pruning.model.tree_digest import tree_digest
from pruning.patch.block_files import Kept
from pruning.patch.landing import Landed, land
from pruning.patch.patch import Patch
from pruning.prune import prune
from pruning.spec import PruneSpec

ORDINARY = partial(torch.empty, dtype=torch.uint8)
CPU = torch.device("cpu")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


KINDS = ("dropped", "dropped with their signs", "new values")


@given(st.integers(0, 99), st.integers(1, 20), st.integers(1, 20), st.sampled_from(DTYPES), st.sampled_from(KINDS))
def test_landed_tensor_is_the_decoded_one(seed: int, rows: int, columns: int, dtype: torch.dtype, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    weight[0, 0] = -torch.inf
    keep = torch.rand(rows, columns, generator=generator) < 0.7
    values = torch.randn(int(keep.sum()), generator=generator).to(dtype) if kind == KINDS[2] else None
    packed = np.packbits(keep.numpy().reshape(-1))
    decoded = weight.clone()
    Kept(packed, values, kind == KINDS[1]).apply(decoded)
    landed = Landed(weight.clone(), torch.from_numpy(packed), values, kind == KINDS[1]).on(CPU)
    if kind == KINDS[1]:
        assert torch.equal(landed.signbit(), weight.signbit())
    assert tree_digest(landed) == tree_digest(decoded), "to the bit: a -0 would be none of the manifest's"


@pytest.mark.parametrize("method", ["dense", "magnitude", "sparsegpt"])
def test_landed_patch_is_what_its_manifest_promises(
    method: str, checkpoints: dict[str, Path], calibration: str, tmp_path: Path
) -> None:
    asked = {"calibration": calibration} if method == "sparsegpt" else {}
    spec = PruneSpec(method) if method == "dense" else PruneSpec(method, sparsity=0.3, **asked)
    manifest = prune(checkpoints["qwen3"], spec, tmp_path / "patch", payload={})
    patch, base = Patch.open(tmp_path / "patch"), Checkpoint.open(checkpoints["qwen3"])
    landed = [item for block in patch.blocks(base, 2, partial(land, room=ORDINARY)) for item in block.items()]
    assert {name: tree_digest(each.on(CPU)) for name, each in landed} == manifest.trees
    assert [name for name, _ in landed] == list(manifest.trees), "in the order of an export"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_patch_on_a_device_is_what_its_manifest_promises(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    manifest = prune(checkpoints["qwen3"], PruneSpec("magnitude", sparsity=0.3), tmp_path / "patch", payload={})
    base = Checkpoint.open(checkpoints["qwen3"])
    stream = Patch.open(tmp_path / "patch").weights(base, ahead=2, device=torch.device("cuda"))
    assert {name: tree_digest(tensor) for name, tensor in stream} == manifest.trees
