"""OWL's layer statistic against whole-model scores."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.support import reference as naive

SPARSITY = 0.3


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_owl_counts_outliers_over_all_linears_of_a_block(checkpoints, windows_file, calibration, tmp_path, kind):
    spec = PruneSpec("magnitude", "owl", SPARSITY, owl_m=3.0, calibration=calibration)
    manifest = prune(checkpoints[kind], spec, tmp_path / "patch", payload={})
    expected = naive.outlier_percentages(naive.whole_model(checkpoints[kind]), np.load(windows_file), 3.0)
    np.testing.assert_allclose(manifest.evidence["outliers"], expected, atol=0.01)
    shares = np.array(expected)
    shares = (shares - shares.min()) / (shares.max() - shares.min()) * 0.16
    np.testing.assert_allclose(
        [layer.requested for layer in manifest.layers], 1 - (shares - shares.mean() + 1 - SPARSITY), atol=1e-3
    )
