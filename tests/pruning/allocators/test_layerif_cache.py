"""Influence scores are computed once and serve every sparsity."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from pruning.prune import prune
from pruning.spec import CalibrationSpec, PruneSpec
from tests.support import ROOT


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


def test_of_two_processes_one_computes_and_the_other_waits(checkpoints, windows_file, tmp_path):
    np.save(tmp_path / "validation.npy", np.random.default_rng(3).integers(0, 97, (3, 24)))
    command = [
        sys.executable, "-m", "pruning", checkpoints["llama"], "--method", "magnitude", "--allocator", "layerif",
        "--influence-train", windows_file, "--influence-validation", tmp_path / "validation.npy",
    ]  # fmt: skip
    both = [
        subprocess.Popen(
            [*map(str, command), "--sparsity", sparsity, "--patch", str(tmp_path / sparsity)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PRUNESWEEP_CACHE": str(tmp_path / "cache")},
        )
        for sparsity in ("0.2", "0.4")
    ]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("gradients of sample" in text for text in said) == 1
