"""Manifests survive the disk, and other formats are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pruning.patch.manifest import read_manifest
from pruning.prune import prune
from pruning.spec import PruneSpec


@pytest.fixture(scope="module")
def patch(checkpoints, calibration, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "wanda"
    prune(checkpoints["qwen3"], PruneSpec("wanda", sparsity=0.2, calibration=calibration), folder, payload={"k": [1]})
    return folder


def test_manifest_survives_the_disk(patch):
    manifest = read_manifest(patch)
    assert manifest.payload == {"k": [1]}
    assert manifest.spec.group == "row"
    zeros = sum(layer.realised for layer in manifest.layers) / len(manifest.layers)
    assert manifest.realised == pytest.approx(zeros)
    assert manifest.bytes == sum(file.stat().st_size for file in patch.glob("layer-*"))
    assert all(set(layer.modules) >= {"self_attn.q_proj", "mlp.down_proj"} for layer in manifest.layers)


def test_another_format_is_refused_before_anything_else_is_read(patch, tmp_path):
    shutil.copytree(patch, tmp_path / "old")
    (tmp_path / "old" / "manifest.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="format 0, this version reads 1"):
        read_manifest(tmp_path / "old")


def test_manifest_of_an_earlier_version_is_read(patch, tmp_path):
    """It recorded no tree digests, and nothing of what rounding does to the canary."""
    value = json.loads((patch / "manifest.json").read_text())
    del value["trees"], value["canary"]["rounded"], value["sha256"]
    seal = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(value | {"sha256": seal}))
    old, new = read_manifest(tmp_path), read_manifest(patch)
    assert old == replace(new, trees={}, canary=replace(new.canary, rounded={}))
    assert old.weights_digest == new.weights_digest
