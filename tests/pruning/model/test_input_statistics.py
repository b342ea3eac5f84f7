"""Norms and Hessians of a block's inputs against sums written from their definition, in float64."""

import pytest
import torch

from pruning.model.architecture import INPUT_OF, LINEARS
from pruning.model.input_statistics import READERS, InputStatistics

WIDTH, INNER, TOKENS = 300, 700, 1100
"""Neither a multiple of the rows that are added at a time."""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


class Block(torch.nn.Module):
    """A decoder block's linears, fed from given tensors; `products` counts the forwards of each."""

    def __init__(self, inputs, dtype, device):
        super().__init__()
        self.inputs, self.products = inputs, dict.fromkeys(LINEARS, 0)
        self.self_attn, self.mlp = torch.nn.Module(), torch.nn.Module()
        for linear in LINEARS:
            part, name = linear.split(".")
            width = inputs[INPUT_OF[linear]].shape[-1]
            module = torch.nn.Linear(width, 8, bias=False, dtype=dtype, device=device)
            module.register_forward_hook(lambda *_call, linear=linear: self.count(linear))
            self.get_submodule(part).add_module(name, module)

    def count(self, linear):
        self.products[linear] += 1

    def forward(self):
        return [self.get_submodule(linear)(self.inputs[INPUT_OF[linear]]) for linear in LINEARS]


def fed(dtype, device, seed=0):
    """Inputs of two windows for every linear, of which one column is always zero."""
    made = torch.Generator().manual_seed(seed)
    inputs = {}
    for reader in READERS:
        width = INNER if reader == "mlp.down_proj" else WIDTH
        inputs[reader] = torch.randn((2, TOKENS // 2, width), generator=made).to(device, dtype)
        inputs[reader][..., 3] = 0
    return inputs


def gathered(inputs, hessians, dtype, device):
    statistics, block = InputStatistics(with_hessians=hessians), Block(inputs, dtype, device)
    with statistics.observing(block):
        block()
        statistics.gather(block)
    return statistics, block


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_those_of_all_tokens(dtype, device):
    inputs = fed(dtype, device)
    statistics, _ = gathered(inputs, False, dtype, device)
    assert statistics.finite
    for linear in LINEARS:
        rows = inputs[INPUT_OF[linear]].flatten(0, 1).double()
        expected = (2 * rows.square().sum(0)).sqrt()
        torch.testing.assert_close(statistics.norms(linear).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hessian_is_the_sum_of_products_and_symmetric(dtype, device):
    inputs = fed(dtype, device)
    statistics, _ = gathered(inputs, True, dtype, device)
    assert statistics.finite
    for reader in READERS:
        rows = inputs[reader].flatten(0, 1).double()
        hessian = statistics.take_hessian(reader)
        assert torch.equal(hessian, hessian.T)
        # A rounding of each of the sums' terms, and none of their factors: bfloat16 sums would be wrong by 1e-3.
        torch.testing.assert_close(hessian.double(), 2 * rows.T @ rows, rtol=0, atol=2e-6 * 2 * TOKENS)


def test_what_follows_the_last_input_is_left_out():
    statistics, block = InputStatistics(), Block(fed(torch.float32, "cpu"), torch.float32, "cpu")
    with statistics.observing(block):
        statistics.gather(block)
    assert block.products == {linear: linear != "mlp.down_proj" for linear in LINEARS}


@pytest.mark.parametrize("hessians", [False, True])
@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), 1e30])
def test_inputs_that_are_not_finite_or_whose_squares_are_not_are_told(hessians, spoilt):
    inputs = fed(torch.float32, "cpu")
    inputs["mlp.down_proj"][0, 5, 7] = spoilt
    statistics, _ = gathered(inputs, hessians, torch.float32, "cpu")
    assert not statistics.finite
