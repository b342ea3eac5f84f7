"""ShortGPT against block influence measured on the whole model."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.support import reference as naive

KINDS = ("qwen2", "qwen3", "llama", "mistral")


@pytest.mark.parametrize("kind", KINDS)
def test_shortgpt_removes_the_blocks_of_least_influence(checkpoints, windows_file, calibration, tmp_path, kind):
    spec = PruneSpec("shortgpt", blocks=2, calibration=calibration)
    manifest = prune(checkpoints[kind], spec, tmp_path / "patch", payload={})
    influence = naive.block_influence(naive.whole_model(checkpoints[kind]), np.load(windows_file))
    np.testing.assert_allclose(manifest.evidence["block_influence"], influence, rtol=1e-4)
    assert manifest.kept_layers == tuple(sorted(np.argsort(influence, kind="stable")[2:].tolist()))


def test_the_papers_shortgpt_never_removes_the_last_block(checkpoints, calibration, tmp_path):
    spec = PruneSpec("shortgpt", blocks=3, preset="paper", calibration=calibration)
    assert prune(checkpoints["llama"], spec, tmp_path / "patch", payload={}).kept_layers == (3,)
