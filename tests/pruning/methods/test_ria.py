"""RIA where its definition divides zero by zero; test_method_agreement.py compares it with the definition elsewhere."""

from __future__ import annotations

import torch

from pruning.methods.ria import score
from pruning.spec import PruneSpec


def test_empty_rows_and_columns_score_zero_not_nan():
    weight = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, -2.0]])
    importance = score(weight, torch.tensor([1.0, 2.0, 0.0]), PruneSpec("ria", ria_power=0.5))
    assert torch.isfinite(importance).all()
    assert importance[0].tolist() == [0, 0, 0]
    assert importance[1, 1] > 0
