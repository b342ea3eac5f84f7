"""One pass over the decoder blocks: the only such loop of pruning. One block's weights, one activation
buffer.

`run_pass` reads a block's tensors from safetensors, forwards all windows through it in batches and shows the
visitor its linears and their input statistics. The windows' hidden states are overwritten batch by batch by
the block's outputs: at once where unpruned outputs are passed on, else in a second run through the block as
the visitor pruned it (locuslab/wanda's order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pruning.methods.shortgpt import cosines
from pruning.model.architecture import EMBEDDING, FINAL_NORM, LINEARS
from pruning.model.blocks import Blocks, batches
from pruning.model.checkpoint import Checkpoint
from pruning.model.input_statistics import InputStatistics
from pruning.model.memory import give_back
from pruning.model.tensors import TORCH_DTYPE, layer_tensors, read_rows, read_tensor


@dataclass(frozen=True)
class Calibration:
    """Windows, int64 [samples, tokens], and the dtype to compute in."""

    windows: np.ndarray
    dtype: torch.dtype


@dataclass(frozen=True)
class Visit:
    """A block as the visitor sees it: its linears as stored, on the pass's device, and what its inputs were
    like.

    `influence` is 1 - mean cosine (input, output), measured only in passes that hand unpruned outputs on.
    """

    index: int
    weights: Mapping[str, torch.Tensor]
    statistics: InputStatistics | None
    influence: float | None


@dataclass(frozen=True)
class Pass:
    """What a pass needs to know: `rerun` hands on the outputs of the pruned block, `hessians` gathers x x^T
    too.
    """

    base: Checkpoint
    calibration: Calibration | None
    device: str
    rerun: bool = False
    hessians: bool = False


Visitor = Callable[[Visit], Mapping[str, torch.Tensor]]
"""Returns the pruned linears, which a rerun computes with."""


def computing_dtype(compute: str, base: Checkpoint) -> torch.dtype:
    """The dtype of calibration forwards. 'stored' widens float16 to bfloat16: activations overflow its
    range.
    """
    if compute == "stored":
        stored = TORCH_DTYPE[base.tensors[EMBEDDING].dtype]
        return torch.bfloat16 if stored is torch.float16 else stored
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[compute]


def run_pass(plan: Pass, visit: Visitor, progress: Callable[[str], None]) -> None:
    """Show every block to `visit`, in order; without calibration there are weights only.

    Raises ValueError naming the layer for weights or activations that are not finite.
    """
    base, calibration = plan.base, plan.calibration
    blocks = hidden = None
    if calibration is not None:
        blocks = Blocks(base.config, calibration.dtype, plan.device)
        hidden = embedded(base, calibration.windows, calibration.dtype, plan.device)
    for index in range(base.num_layers):
        tensors = {name: tensor.to(plan.device) for name, tensor in layer_tensors(base, index).items()}
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"layer {index}: {name} has NaN or infinite weights; the checkpoint is damaged.")
        weights = {linear: tensors[f"{linear}.weight"] for linear in LINEARS}
        if blocks is None or hidden is None:
            visit(Visit(index, weights, None, None))
        else:
            statistics, influence = _observe(plan, blocks, hidden, index, tensors)
            pruned = visit(Visit(index, weights, statistics, influence))
            if plan.rerun and index + 1 < base.num_layers:  # nobody reads the last block's outputs
                replaced = tensors | {f"{linear}.weight": weight for linear, weight in pruned.items()}
                with blocks.resident(index, replaced) as block, torch.no_grad():
                    for part in batches(*hidden.shape[:2]):
                        hidden[part] = _finite(blocks.forward(block, index, hidden[part]), index)
        give_back()
        progress(f"layer {index + 1}/{base.num_layers}")


def _observe(
    plan: Pass, blocks: Blocks, hidden: torch.Tensor, index: int, tensors: Mapping[str, torch.Tensor]
) -> tuple[InputStatistics, float | None]:
    """Statistics of the unpruned block; without a rerun also its influence, and `hidden` moves on."""
    statistics = InputStatistics(plan.hessians)
    agreement = 0.0
    norm = nn.Identity()
    if index + 1 == plan.base.num_layers:
        # The official ShortGPT code reads transformers' `output_hidden_states`, whose last entry is normed.
        norm = blocks.final_norm(read_tensor(plan.base.tensors[FINAL_NORM]))
    with blocks.resident(index, tensors) as block, statistics.observing(block), torch.no_grad():
        for part in batches(*hidden.shape[:2]):
            outputs = _finite(blocks.forward(block, index, hidden[part]), index)
            if not plan.rerun:
                agreement += float(cosines(hidden[part], norm(outputs)))
                hidden[part] = outputs
    return statistics, None if plan.rerun else 1 - agreement / (hidden.shape[0] * hidden.shape[1])


def _finite(outputs: torch.Tensor, index: int) -> torch.Tensor:
    if not torch.isfinite(outputs).all():
        raise ValueError(
            f"layer {index}: its output activations are NaN or infinite in {outputs.dtype}; "
            "calibrate with compute='float32'."
        )
    return outputs


def embedded(base: Checkpoint, windows: np.ndarray, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Inputs of the first block for token windows [samples, tokens]: [samples, tokens, width]."""
    used, places = np.unique(windows, return_inverse=True)
    rows = read_rows(base.tensors[EMBEDDING], used).to(device, dtype)
    return rows[torch.from_numpy(places.reshape(windows.shape)).to(device)]
