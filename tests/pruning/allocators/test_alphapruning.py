"""AlphaPruning's layer statistic against an SVD."""

from __future__ import annotations

import numpy as np

from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.support import reference as naive

SPARSITY = 0.3


def test_alpha_is_the_hill_estimate_over_singular_values(checkpoints, tmp_path):
    spec = PruneSpec("magnitude", "alphapruning", SPARSITY, alpha_fit="median")
    manifest = prune(checkpoints["llama"], spec, tmp_path / "patch", payload={})
    model = naive.whole_model(checkpoints["llama"])
    expected = []
    for layer in range(4):
        alphas = []
        for name in naive.LINEARS:
            values = np.sort(np.linalg.svd(naive.weight(model, (layer, name)), compute_uv=False) ** 2)
            tail = values[len(values) // 2 :]
            alphas.append(1 + len(tail) / np.log(tail / tail[0]).sum())
        expected.append(np.mean(alphas))
    np.testing.assert_allclose(manifest.evidence["alpha"], expected, rtol=1e-4)
