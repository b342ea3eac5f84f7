"""Wanda against its naive whole-model reference, mask for mask."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.spec import PruneSpec
from tests.support import reference as naive
from tests.support.pruned import assert_same_masks, pruned_weights

KINDS = ("qwen2", "qwen3", "llama", "mistral")
SPARSITY = 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_wanda_by_rows_sees_pruned_activations(checkpoints, windows_file, calibration, tmp_path, kind):
    spec = PruneSpec("wanda", sparsity=SPARSITY, calibration=calibration)
    got = pruned_weights(checkpoints[kind], spec, tmp_path / "patch")
    dropped, _ = naive.sequential(
        naive.whole_model(checkpoints[kind]),
        np.load(windows_file),
        lambda key, w, x: (naive.rows_exact(naive.wanda_score(w, x), SPARSITY), w),
        pruned=True,
    )
    assert_same_masks(got, dropped)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_wanda_by_matrix_on_dense_activations_as_the_paper_does_with_layerif(
    checkpoints, windows_file, calibration, tmp_path, kind
):
    spec = PruneSpec("wanda", sparsity=SPARSITY, group="matrix", propagate="dense", calibration=calibration)
    got = pruned_weights(checkpoints[kind], spec, tmp_path / "patch")

    def decide(key, w, x):
        (dropped,) = naive.group_exact([naive.wanda_score(w, x)], int(w.size * SPARSITY))
        return dropped, w

    model = naive.whole_model(checkpoints[kind])
    dropped, _ = naive.sequential(model, np.load(windows_file), decide, pruned=False)
    assert_same_masks(got, dropped)
