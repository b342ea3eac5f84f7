"""Where weights are equal, no more fall than were asked for without a word."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.pruning.conftest import make_checkpoint
from tests.support.pruned import pruned_weights

MAGNITUDE = PruneSpec("magnitude", sparsity=0.1)


@pytest.fixture
def equal(tmp_path):
    """A checkpoint in which all weights of the linears of layer 2 are the same."""
    folder = make_checkpoint(tmp_path / "equal", "llama")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.startswith("model.layers.2.") and name.endswith("_proj.weight"):
            tensor.fill_(0.125)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("group", ["matrix", "row", "layer"])
def test_recommended_refuses_what_would_remove_far_more_than_asked(equal, tmp_path, group):
    spec = replace(MAGNITUDE, group=group)
    message = r"layer 2: 100\.00% of the weights would fall where 1\d\.\d\d% were asked for, .*use selection 'exact'"
    with pytest.raises(ValueError, match=message):
        prune(equal, spec, tmp_path / "out" / "patch", payload={})
    assert list((tmp_path / "out").iterdir()) == []


def test_ranking_of_the_whole_model_is_refused_alike(equal, tmp_path):
    with pytest.raises(ValueError, match=r"all layers together: .* where 60\.\d\d% were asked for"):
        prune(equal, replace(MAGNITUDE, group="model", sparsity=0.6), tmp_path / "patch", payload={})


def test_exact_selection_removes_what_was_asked(equal, tmp_path):
    manifest = prune(equal, replace(MAGNITUDE, selection="exact"), tmp_path / "patch", payload={})
    assert 0.0995 < manifest.layers[2].realised <= 0.1


@pytest.mark.parametrize("allowed", [{"preset": "upstream"}, {"preset": "paper"}, {"tie_limit": 1.0}])
def test_upstreams_rule_may_be_asked_for_and_is_reported(equal, tmp_path, allowed):
    said: list[str] = []
    spec = replace(MAGNITUDE, **allowed)
    manifest = prune(equal, spec, tmp_path / "patch", payload={}, progress=said.append)
    assert manifest.layers[2].realised == 1
    (warning,) = [line for line in said if "more than asked for fell" in line]
    assert "selection 'exact'" in warning


def test_weights_that_were_zero_before_are_not_removed_again(tmp_path):
    folder = make_checkpoint(tmp_path / "sparse", "llama")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight"):
            tensor[:, ::2] = 0
    save_file(tensors, folder / "model.safetensors")
    said: list[str] = []
    manifest = prune(folder, MAGNITUDE, tmp_path / "patch", payload={}, progress=said.append)
    assert 0.49 < manifest.realised < 0.52
    assert not [line for line in said if "more than asked" in line]


def test_ties_of_rounding_are_reported_and_change_no_mask(tmp_path):
    folder = make_checkpoint(tmp_path / "bf16", "qwen3", torch.bfloat16, hidden_size=128, intermediate_size=256)
    said: list[str] = []
    prune(folder, replace(MAGNITUDE, sparsity=0.5), tmp_path / "patch", payload={}, progress=said.append)
    assert [line for line in said if "more than asked for fell" in line]
    ours = pruned_weights(folder, replace(MAGNITUDE, sparsity=0.5), tmp_path / "recommended")
    theirs = pruned_weights(folder, replace(MAGNITUDE, sparsity=0.5, preset="upstream"), tmp_path / "upstream")
    assert all(((ours[key] == 0) == (theirs[key] == 0)).all() for key in ours)


def test_calibrated_methods_are_held_to_it(equal, tmp_path, calibration):
    spec = PruneSpec("ria", sparsity=0.1, calibration=calibration, ria_power=0.0)
    with pytest.raises(ValueError, match="layer 2: "):
        prune(equal, spec, tmp_path / "patch", payload={})
