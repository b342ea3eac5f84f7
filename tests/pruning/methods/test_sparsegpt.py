"""SparseGPT against surgery with explicit inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pruning.methods import METHODS
from pruning.methods.prune_block import prune_by_solver
from pruning.model.architecture import LINEARS
from pruning.model.input_statistics import InputStatistics
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
    method = METHODS["sparsegpt"]
    found = []
    for count in (1, 2, 4):
        threads(count)
        found.append(method.solve(weight, method.prepare(hessian.clone(), spec), 0.5, spec))
        assert torch.get_num_threads() == count
    for keep, updated in found[1:]:
        assert torch.equal(keep, found[0][0])
        assert torch.equal(updated, found[0][1])


class HeldAtFactorisation(TorchDispatchMode):
    """Notes the bytes of Hessians that statistics hold whenever a matrix is factorised."""

    def __init__(self, statistics):
        super().__init__()
        self.statistics, self.held = statistics, []

    def __torch_dispatch__(self, call, types, arguments=(), keywords=None):
        if "cholesky_ex" in str(call):
            self.held.append(self.statistics.hessian_bytes)
        return call(*arguments, **keywords or {})


def test_a_hessian_is_factorised_once_for_its_linears_and_given_up_before_the_next():
    width, inner = 16, 32
    block = torch.nn.ModuleDict({"self_attn": torch.nn.ModuleDict(), "mlp": torch.nn.ModuleDict()})
    for linear in LINEARS:
        part, name = linear.split(".")
        entering, leaving = (inner, width) if name == "down_proj" else (width, inner)
        block[part][name] = torch.nn.Linear(entering, leaving if part == "mlp" else width, bias=False)
    statistics = InputStatistics(with_hessians=True)
    with statistics.observing(block):
        for linear in LINEARS:
            module = block.get_submodule(linear)
            module(torch.randn(100, module.in_features))
    weights = {linear: block.get_submodule(linear).weight.detach() for linear in LINEARS}
    spec = resolve(PruneSpec("sparsegpt", sparsity=0.5, calibration=CalibrationSpec("c4")))
    small, large = 4 * width**2, 4 * inner**2
    assert statistics.hessian_bytes == 3 * small + large
    with HeldAtFactorisation(statistics) as seen:
        pruned = prune_by_solver(spec, weights, statistics, dict.fromkeys(LINEARS, 0.5))
    assert list(pruned.keep) == list(LINEARS)
    left = [2 * small + large, small + large, large, 0]
    assert seen.held == [held for held in left for _ in range(2)]  # H, then the inverse
