"""Writing a patch is deterministic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pruning.patch.manifest import read_manifest
from pruning.prune import prune
from pruning.spec import PruneSpec

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
