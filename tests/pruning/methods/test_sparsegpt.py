"""SparseGPT against surgery with explicit inverses."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.spec import PruneSpec
from tests.support import reference as naive
from tests.support.pruned import assert_same_masks, pruned_weights

SPARSITY = 0.3


@pytest.mark.parametrize(("kind", "pattern"), [("qwen2", None), ("llama", None), ("qwen3", "2:4"), ("mistral", "1:4")])
def test_sparsegpt_equals_surgery_with_explicit_inverses(
    checkpoints, windows_file, calibration, tmp_path, kind, pattern
):
    spec = PruneSpec(
        "sparsegpt",
        sparsity=None if pattern else SPARSITY,
        pattern=pattern,
        sparsegpt_block=32,
        calibration=calibration,
    )
    got = pruned_weights(checkpoints[kind], spec, tmp_path / "patch")
    groups = None if pattern is None else tuple(map(int, pattern.split(":")))
    dropped, updated = naive.sequential(
        naive.whole_model(checkpoints[kind]),
        np.load(windows_file),
        lambda key, w, x: naive.sparsegpt(w, x, SPARSITY, block=32, pattern=groups),
        pruned=True,
    )
    assert_same_masks(got, dropped)
    for key, weights in got.items():
        error = np.linalg.norm(weights - updated[key]) / np.linalg.norm(updated[key])
        assert error < 1e-3, key
