"""Magnitude against full sorts, mask for mask, in every group and where weights tie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.spec import PruneSpec
from tests.support import reference as naive
from tests.support.pruned import assert_same_masks, pruned_weights

SPARSITY = 0.3


@pytest.mark.parametrize("selection", ["threshold", "exact"])
@pytest.mark.parametrize("group", ["matrix", "layer", "model", "row"])
def test_magnitude_drops_what_a_full_sort_drops(checkpoints, tmp_path, group, selection):
    spec = PruneSpec("magnitude", sparsity=SPARSITY, group=group, selection=selection)
    got = pruned_weights(checkpoints["llama"], spec, tmp_path / "patch")
    model = naive.whole_model(checkpoints["llama"])
    scores = {key: np.abs(naive.weight(model, key)) for key in naive.keys(model)}
    cut = naive.group_exact if selection == "exact" else naive.group_threshold
    if group == "row":
        rows = {key: [row[None] for row in score] for key, score in scores.items()}
        dropped = {
            key: np.concatenate([cut([row], int(row.size * SPARSITY))[0] for row in each]) for key, each in rows.items()
        }
    else:
        groups = {
            "matrix": [[key] for key in scores],
            "layer": [[key for key in scores if key[0] == layer] for layer in range(4)],
            "model": [list(scores)],
        }[group]
        dropped = {}
        for members in groups:
            count = sum(int(scores[key].size * SPARSITY) for key in members)
            if group == "model":
                count = int(sum(scores[key].size for key in members) * SPARSITY)
            dropped |= dict(zip(members, cut([scores[key] for key in members], count), strict=True))
    assert_same_masks(got, dropped)


def test_ties_fall_in_row_major_order(checkpoints, tmp_path, windows_file):
    """Weights on a coarse grid: most entries tie, so only the order decides."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 8).round().clamp(-2, 2) / 8 + 0.03125)
    model.save_pretrained(tmp_path / "coarse")
    reread = naive.whole_model(tmp_path / "coarse")
    for number, (group, selection) in enumerate((g, s) for g in ("matrix", "model") for s in ("exact", "threshold")):
        spec = PruneSpec("magnitude", sparsity=SPARSITY, group=group, selection=selection, preset="upstream")
        got = pruned_weights(tmp_path / "coarse", spec, tmp_path / f"patch{number}")
        scores = {key: np.abs(naive.weight(reread, key)) for key in naive.keys(reread)}
        cut = naive.group_exact if selection == "exact" else naive.group_threshold
        groups = [[key] for key in scores] if group == "matrix" else [list(scores)]
        dropped = {}
        for members in groups:
            count = int(sum(scores[key].size for key in members) * SPARSITY)
            dropped |= dict(zip(members, cut([scores[key] for key in members], count), strict=True))
        assert_same_masks(got, dropped)
