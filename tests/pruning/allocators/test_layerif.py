"""LayerIF as the paper's preset applies it."""

from __future__ import annotations

import numpy as np

from pruning.prune import prune
from pruning.spec import CalibrationSpec, PruneSpec


def test_the_paper_preset_with_layerif_differs_from_uniform_in_three_ways(checkpoints, windows_file, tmp_path):
    np.save(tmp_path / "validation.npy", np.random.default_rng(3).integers(0, 97, (3, 24)))
    spec = PruneSpec(
        "wanda",
        "layerif",
        0.2,
        preset="paper",
        calibration=CalibrationSpec(str(windows_file)),
        influence_validation=CalibrationSpec(str(tmp_path / "validation.npy")),
    )
    manifest = prune(checkpoints["qwen2"], spec, tmp_path / "patch", payload={})
    assert (manifest.spec.group, manifest.spec.propagate, manifest.spec.bounds) == ("matrix", "dense", "clamp")
    assert len({round(layer.requested_parts["attention"], 6) for layer in manifest.layers}) > 1
    assert set(manifest.calibration) == {"calibration", "influence_train", "influence_validation"}
