"""The canary notices a changed weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pruning.model.checkpoint import Checkpoint
from pruning.patch.canary import canary_logprobs
from pruning.patch.patch import Patch
from pruning.prune import prune
from pruning.spec import PruneSpec


@pytest.fixture(scope="module")
def patch(checkpoints, calibration, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "wanda"
    prune(checkpoints["qwen3"], PruneSpec("wanda", sparsity=0.2, calibration=calibration), folder, payload={"k": [1]})
    return folder


def test_canary_tells_one_flipped_sign(checkpoints, patch):
    base, opened = Checkpoint.open(checkpoints["qwen3"]), Patch.open(patch)
    tensors = dict(opened.weights(base))
    tensors["model.layers.1.mlp.up_proj.weight"][0] *= -1
    (logprobs,) = canary_logprobs(opened.config(base), tensors.items(), opened.manifest.canary.token_ids)
    assert np.abs(np.subtract(logprobs, opened.manifest.canary.logprobs)).max() > 1e-3
