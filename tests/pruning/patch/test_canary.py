"""The canary notices a changed weight, and knows what rounding alone does to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning.model.checkpoint import Checkpoint
from pruning.patch.canary import COMPARED, canary_logprobs
from pruning.patch.export import export
from pruning.patch.patch import Patch
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.pruning.conftest import make_checkpoint


@pytest.fixture(scope="module")
def patch(checkpoints, calibration, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "wanda"
    prune(checkpoints["qwen3"], PruneSpec("wanda", sparsity=0.2, calibration=calibration), folder, payload={"k": [1]})
    return folder


def test_canary_tells_one_flipped_sign(checkpoints, patch):
    base, opened = Checkpoint.open(checkpoints["qwen3"]), Patch.open(patch)
    tensors = dict(opened.weights(base))
    tensors["model.layers.1.mlp.up_proj.weight"][0] *= -1
    logprobs = canary_logprobs(opened.config(base), tensors.items(), opened.manifest.canary.token_ids)
    assert np.abs(np.subtract(logprobs, opened.manifest.canary.logprobs)).max() > 1e-3


def test_canary_of_a_half_precision_checkpoint_records_what_that_precision_makes_of_it(tmp_path):
    model_dir = make_checkpoint(tmp_path / "model", "llama", torch.bfloat16)
    canary = prune(model_dir, PruneSpec("magnitude", sparsity=0.5), tmp_path / "patch", payload={}).canary
    export(model_dir, tmp_path / "patch", tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.bfloat16)
    ids = torch.tensor(canary.token_ids[: COMPARED + 1])
    with torch.no_grad():
        logprobs = model(ids[None]).logits[0].float().log_softmax(-1)
    expected = logprobs[:-1].gather(1, ids[1:, None])[:, 0].numpy()
    assert canary.rounded.keys() == {"bfloat16"}
    rounded, exact = np.array(canary.rounded["bfloat16"]), np.array(canary.logprobs[:COMPARED])
    assert np.abs(rounded - expected).mean() < np.abs(exact - expected).mean() / 2
    assert Patch.open(tmp_path / "patch").manifest.canary == canary, "it is read as it was written"


def test_canary_of_a_float32_checkpoint_has_no_rounding_to_record(patch):
    assert Patch.open(patch).manifest.canary.rounded == {}
