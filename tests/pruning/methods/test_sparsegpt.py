"""SparseGPT against surgery with explicit inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.methods import METHODS
from pruning.resolve import resolve
from pruning.spec import CalibrationSpec, PruneSpec
from tests.support import reference as naive
from tests.support.pruned import assert_same_masks, pruned_weights

SPARSITY = 0.3


@pytest.mark.parametrize(("kind", "pattern"), [("qwen2", None), ("llama", None), ("qwen3", "2:4"), ("mistral", "1:4")])
def test_sparsegpt_equals_surgery_with_explicit_inverses(
    checkpoints, windows_file, calibration, tmp_path, kind, pattern
):
    spec = PruneSpec(
        "sparsegpt",
        sparsity=None if pattern else SPARSITY,
        pattern=pattern,
        sparsegpt_block=32,
        calibration=calibration,
    )
    got = pruned_weights(checkpoints[kind], spec, tmp_path / "patch")
    groups = None if pattern is None else tuple(map(int, pattern.split(":")))
    dropped, updated = naive.sequential(
        naive.whole_model(checkpoints[kind]),
        np.load(windows_file),
        lambda key, w, x: naive.sparsegpt(w, x, SPARSITY, block=32, pattern=groups),
        pruned=True,
    )
    assert_same_masks(got, dropped)
    for key, weights in got.items():
        error = np.linalg.norm(weights - updated[key]) / np.linalg.norm(updated[key])
        assert error < 1e-3, key


@pytest.fixture
def threads():
    """Sets how many threads torch has, and sets them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [{"pattern": "2:4"}, {"sparsity": 0.5}])
def test_result_does_not_depend_on_the_number_of_threads(threads, shape):
    random = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(64, 256, generator=random), torch.randn(300, 256, generator=random)
    hessian = inputs.T @ inputs
    spec = resolve(PruneSpec("sparsegpt", **shape, calibration=CalibrationSpec("c4")))
    solve = METHODS["sparsegpt"].solve
    found = []
    for count in (1, 2, 4):
        threads(count)
        found.append(solve(weight, hessian.clone(), 0.5, spec))
        assert torch.get_num_threads() == count
    for keep, updated in found[1:]:
        assert torch.equal(keep, found[0][0])
        assert torch.equal(updated, found[0][1])
