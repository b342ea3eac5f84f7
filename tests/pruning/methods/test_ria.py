"""RIA where its definition divides zero by zero; test_method_agreement.py compares it with the definition elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.methods.ria import score
from pruning.spec import PruneSpec
from tests.support import reference as naive
from tests.support.pruned import assert_same_masks, pruned_weights

SPARSITY = 0.3


def test_empty_rows_and_columns_score_zero_not_nan():
    weight = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, -2.0]])
    importance = score(weight, torch.tensor([1.0, 2.0, 0.0]), PruneSpec("ria", ria_power=0.5))
    assert torch.isfinite(importance).all()
    assert importance[0].tolist() == [0, 0, 0]
    assert importance[1, 1] > 0


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
def test_ria_follows_its_definition(checkpoints, windows_file, calibration, tmp_path, kind):
    spec = PruneSpec("ria", sparsity=SPARSITY, calibration=calibration)
    got = pruned_weights(checkpoints[kind], spec, tmp_path / "patch")

    def decide(key, w, x):
        (dropped,) = naive.group_threshold([naive.ria_score(w, x)], int(w.size * SPARSITY))
        return dropped, w

    model = naive.whole_model(checkpoints[kind])
    dropped, _ = naive.sequential(model, np.load(windows_file), decide, pruned=True)
    assert_same_masks(got, dropped)
