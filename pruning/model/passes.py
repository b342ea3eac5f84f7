"""One pass over the decoder blocks, holding one block's weights, those read ahead, and one buffer of activations.

`run_pass` reads a block's tensors from safetensors, in threads before they are due, forwards all windows through it in
batches and shows its linears and their input statistics to the visitor. The block's outputs overwrite the windows'
hidden states batch by batch: at once if unpruned outputs are passed on, else in a second run through the block as the
visitor pruned it (locuslab/wanda's order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from pruning.model.architecture import EMBEDDING, FINAL_NORM, LINEARS
from pruning.model.blocks import Blocks, batches
from pruning.model.checkpoint import Checkpoint
from pruning.model.input_statistics import InputStatistics
from pruning.model.memory import trim_heap
from pruning.model.tensors import TORCH_DTYPE, layer_tensors, read_finite, read_rows
from pruning.prefetch import prefetch, spare_threads


@dataclass(frozen=True)
class Calibration:
    """Windows, int64 [samples, tokens], and the dtype to compute in."""

    windows: np.ndarray
    dtype: torch.dtype


@dataclass(frozen=True)
class BlockView:
    """A block as the visitor sees it: its linears as stored, on the pass's device, and statistics of their inputs.

    `influence` is 1 - mean cosine(block input, block output), measured only if unpruned outputs are passed on. Both
    are None without calibration.
    """

    index: int
    weights: Mapping[str, torch.Tensor]
    statistics: InputStatistics | None
    influence: float | None


@dataclass(frozen=True)
class PassSettings:
    """What to run a pass on. `rerun` passes the outputs of the pruned block on; `hessians` gathers x x^T, too."""

    base: Checkpoint
    calibration: Calibration | None
    device: str
    rerun: bool = False
    hessians: bool = False


Visitor = Callable[[BlockView], Mapping[str, torch.Tensor]]
"""Returns the pruned linears, by which a rerun replaces the block's own."""


def computing_dtype(compute: str, base: Checkpoint) -> torch.dtype:
    """The dtype of calibration forwards. 'stored' widens float16, whose range activations overflow, to bfloat16."""
    if compute == "stored":
        stored = TORCH_DTYPE[base.tensors[EMBEDDING].dtype]
        return torch.bfloat16 if stored is torch.float16 else stored
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[compute]


def run_pass(settings: PassSettings, visit: Visitor, progress: Callable[[str], None]) -> None:
    """Show every block to `visit`, in order; without calibration only its weights.

    Raises ValueError naming the layer for weights or activations that are not finite.
    """
    base, calibration = settings.base, settings.calibration
    blocks = hidden = None
    if calibration is not None:
        blocks = Blocks(base.config, calibration.dtype, settings.device)
        hidden = embedded(base, calibration.windows, calibration.dtype, settings.device)
    on_gpu = torch.device(settings.device).type == "cuda"
    layers = (partial(layer_tensors, base, index, page_locked=on_gpu) for index in range(base.num_layers))
    reads = prefetch(layers, spare_threads(2))
    with closing(reads):
        for index, read in enumerate(reads):
            tensors = {name: tensor.to(settings.device, non_blocking=True) for name, tensor in read.items()}
            for name, tensor in tensors.items():
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"layer {index}: {name} has NaN or infinite weights; the checkpoint is damaged.")
            weights = {linear: tensors[f"{linear}.weight"] for linear in LINEARS}
            if blocks is None or hidden is None:
                visit(BlockView(index, weights, None, None))
            else:
                statistics, influence = _observe(settings, blocks, hidden, index, tensors)
                pruned = visit(BlockView(index, weights, statistics, influence))
                if settings.rerun and index + 1 < base.num_layers:  # the last block's outputs are not used
                    replaced = tensors | {f"{linear}.weight": weight for linear, weight in pruned.items()}
                    with blocks.resident(index, replaced) as block, torch.no_grad():
                        for part in batches(hidden):
                            hidden[part] = _finite(blocks.forward(block, index, hidden[part]), index)
            trim_heap()
            progress(f"layer {index + 1}/{base.num_layers}")


def _observe(
    settings: PassSettings, blocks: Blocks, hidden: torch.Tensor, index: int, tensors: Mapping[str, torch.Tensor]
) -> tuple[InputStatistics, float | None]:
    """Statistics of the unpruned block; without a rerun also its influence, and its outputs replace `hidden`."""
    statistics = InputStatistics(settings.hessians)
    agreement = 0.0
    norm = nn.Identity()
    if index + 1 == settings.base.num_layers:
        # The official ShortGPT code reads transformers' `output_hidden_states`, whose last entry is normed.
        norm = blocks.final_norm(read_finite(settings.base.tensors[FINAL_NORM]))
    with blocks.resident(index, tensors) as block, statistics.observing(block), torch.no_grad():
        for part in batches(hidden):
            if settings.rerun:
                statistics.gather(partial(blocks.forward, block, index, hidden[part]))
            else:
                outputs = _finite(blocks.forward(block, index, hidden[part]), index)
                agreement += float(cosines(hidden[part], norm(outputs)))
                hidden[part] = outputs
    if not statistics.finite:
        raise _not_finite(index, hidden.dtype)
    return statistics, None if settings.rerun else 1 - agreement / (hidden.shape[0] * hidden.shape[1])


def _finite(outputs: torch.Tensor, index: int) -> torch.Tensor:
    if not torch.isfinite(outputs).all():
        raise _not_finite(index, outputs.dtype)
    return outputs


def _not_finite(index: int, dtype: torch.dtype) -> ValueError:
    return ValueError(
        f"layer {index}: its activations are NaN or infinite in {dtype}; calibrate with compute='float32'."
    )


def cosines(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of cos(h_in, h_out), a float64 scalar; inputs [..., width].

    A zero vector has no direction; its cosine counts as .5, by which ShortGPT's code replaces NaN.
    """
    wide_before, wide_after = before.to(torch.float32), after.to(torch.float32)
    dots = (wide_before * wide_after).sum(dim=-1)
    lengths = wide_before.norm(dim=-1) * wide_after.norm(dim=-1)
    return torch.where(lengths > 0, dots / lengths, 0.5).double().sum()


def embedded(base: Checkpoint, windows: np.ndarray, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Inputs of the first block for token windows [samples, tokens]: [samples, tokens, width].

    Raises ValueError naming the embedding and the first token whose row is not finite.
    """
    used, places = np.unique(windows, return_inverse=True)
    stored = read_rows(base.tensors[EMBEDDING], used).to(device)
    spoilt = (~torch.isfinite(stored).all(dim=1)).nonzero().flatten().tolist()
    if spoilt:
        raise ValueError(
            f"{base.tensors[EMBEDDING].file}: {EMBEDDING} has NaN or infinite weights for {len(spoilt)} of the "
            f"{len(used)} tokens in use, first token {int(used[spoilt[0]])}; the checkpoint is damaged: "
            "download it again."
        )
    return stored.to(dtype)[torch.from_numpy(places.reshape(windows.shape)).to(device)]
