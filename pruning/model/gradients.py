"""Per-sample gradients of every block linear, one block resident at a time.

A linear's weight gradient is delta^T x, the gradient of its outputs times its inputs, summed over tokens. The
sweep yields x and delta and never forms a weight gradient, because most uses need only its inner product with
some matrix V, which is sum_t delta_t . (V x_t), for a whole batch of samples at once.

Memory: one block's weights, the inputs of every block for one chunk of samples (`boundary_bytes` at most, one
sample at least), and one batch's activations. Each further chunk costs another read of the weights. Nothing
grows with the number of samples and, except for the block inputs, nothing with the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pruning.model.architecture import EMBEDDING, FINAL_NORM, HEAD, LINEARS
from pruning.model.blocks import Blocks, batches
from pruning.model.checkpoint import Checkpoint
from pruning.model.memory import trim_heap
from pruning.model.passes import embedded
from pruning.model.tensors import layer_tensors, read_finite

BOUNDARY_BYTES: Final = 8 << 30
_LOSS_TOKENS: Final = 512  # logits of a 152k vocabulary weigh .6 MB per token in float32


@dataclass(frozen=True)
class LinearGradient:
    """Factors of one linear's gradients: `inputs` [batch, tokens, d_in], `deltas` [batch, tokens, d_out]."""

    layer: int
    linear: str
    samples: slice
    inputs: torch.Tensor
    deltas: torch.Tensor


Receive = Callable[[LinearGradient], None]


@dataclass(frozen=True)
class GradientSweep:
    """Gradients of each sample's mean next-token loss, in nats per token, computed in `dtype`."""

    base: Checkpoint
    dtype: torch.dtype
    device: str
    boundary_bytes: int = BOUNDARY_BYTES

    def run(self, windows: np.ndarray, receive: Receive, progress: Callable[[str], None]) -> None:
        """Call `receive` with the gradient of every linear and sample; `windows` is int64 [samples, tokens]."""
        blocks = Blocks(self.base.config, self.dtype, self.device)
        samples, tokens = windows.shape
        width = int(self.base.config["hidden_size"])
        per_sample = (self.base.num_layers + 1) * tokens * width * self.dtype.itemsize
        chunk = max(1, self.boundary_bytes // per_sample)
        for start in range(0, samples, chunk):
            stop = min(start + chunk, samples)
            self._chunk(blocks, windows[start:stop], start, receive)
            progress(f"gradients of sample {stop}/{samples}")

    def _chunk(self, blocks: Blocks, windows: np.ndarray, offset: int, receive: Receive) -> None:
        boundaries = [embedded(self.base, windows, self.dtype, self.device)]
        parts = batches(boundaries[0])
        for layer in range(self.base.num_layers):
            with blocks.resident(layer, self._tensors(layer)) as block, torch.no_grad():
                outputs = torch.empty_like(boundaries[-1])
                for part in parts:
                    outputs[part] = blocks.forward(block, layer, boundaries[-1][part])
                boundaries.append(outputs)
        upstream = self._loss_gradient(blocks, boundaries.pop(), windows)
        for layer in reversed(range(self.base.num_layers)):
            inputs = boundaries.pop()
            with blocks.resident(layer, self._tensors(layer)) as block:
                for part in parts:
                    gradients, passed_on = _backward(blocks, block, layer, inputs[part], upstream[part])
                    here = slice(offset + part.start, offset + part.stop)
                    for linear, (entering, delta) in gradients.items():
                        receive(LinearGradient(layer, linear, here, entering, delta))
                    upstream[part] = passed_on  # only now: down_proj's delta is a view of it
            trim_heap()

    def _tensors(self, layer: int) -> dict[str, torch.Tensor]:
        return layer_tensors(self.base, layer, page_locked=torch.device(self.device).type == "cuda")

    def _loss_gradient(self, blocks: Blocks, hidden: torch.Tensor, windows: np.ndarray) -> torch.Tensor:
        """Gradient of each sample's loss by the last block's output, [samples, tokens, width]."""
        norm = blocks.final_norm(read_finite(self.base.tensors[FINAL_NORM])).requires_grad_(False)
        tied = self.base.tied or HEAD not in self.base.tensors
        head = read_finite(self.base.tensors[EMBEDDING if tied else HEAD]).to(self.device, self.dtype)
        gradient = torch.zeros_like(hidden)
        last = hidden.shape[1] - 1
        for sample, ids in enumerate(torch.from_numpy(windows).to(self.device)):
            for start in range(0, last, _LOSS_TOKENS):
                here = slice(start, min(start + _LOSS_TOKENS, last))
                inputs = hidden[sample, here].detach().requires_grad_()
                logits = (norm(inputs) @ head.T).float()
                loss = F.cross_entropy(logits, ids[here.start + 1 : here.stop + 1], reduction="sum") / last
                (gradient[sample, here],) = torch.autograd.grad(loss, inputs)
        if not torch.isfinite(gradient).all():
            raise ValueError(f"layer {self.base.num_layers - 1}: the loss gradient is not finite in {self.dtype}.")
        return gradient


def _backward(
    blocks: Blocks, block: nn.Module, layer: int, inputs: torch.Tensor, upstream: torch.Tensor
) -> tuple[Mapping[str, tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """(inputs, output gradient) by linear, and the gradient of the block's inputs."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(linear: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[linear] = (inputs[0], output)

        return hook

    handles = [block.get_submodule(linear).register_forward_hook(keep(linear)) for linear in LINEARS]
    try:
        leaf = inputs.detach().requires_grad_()
        outputs = blocks.forward(block, layer, leaf)
    finally:
        for handle in handles:
            handle.remove()
    sources = [leaf, *(seen[linear][1] for linear in LINEARS)]
    gradients = torch.autograd.grad(outputs, sources, upstream)
    deltas = zip(LINEARS, gradients[1:], strict=True)
    return {linear: (seen[linear][0].detach(), delta) for linear, delta in deltas}, gradients[0]
