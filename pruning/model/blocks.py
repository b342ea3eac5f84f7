"""One decoder block at a time: transformers' own layer classes, materialised, run and released.

The model is built on the meta device, where it takes no memory; a block holds real tensors only inside a `with`
statement. Rotary embeddings and attention masks (full, sliding, per `layer_types`) come from transformers' own
functions, so a block computes what it computes inside the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import create_masks_for_generate

GPU_BATCH_TOKENS: Final = 8192
"""Tokens per forward: enough to keep a GPU busy, few enough that an MLP's intermediates stay under 1 GB."""
CPU_BATCH_TOKENS: Final = 1024
"""The same on a CPU, few enough that a small model's intermediates stay in its cache."""
_BUILDING: Final = Lock()


class Blocks:
    """The decoder blocks of one configuration, computing in one dtype on one device."""

    def __init__(self, config: Mapping[str, Any], dtype: torch.dtype, device: str) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        settings = {key: value for key, value in config.items() if key not in ("torch_dtype", "dtype")}
        self._config = AutoConfig.for_model(**settings)
        # While it builds a model, transformers sets torch's default dtype, which all threads of a process share: two at
        # once may leave the one's behind for good.
        with _BUILDING, torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self._config, dtype=dtype, attn_implementation="sdpa")
        model.eval()
        model.requires_grad_(False)
        self._layers: nn.ModuleList = model.model.layers
        self._norm: nn.Module = model.model.norm
        # Built again on the real device: its buffers are computed, not loaded, and stay float32.
        self._rotary: nn.Module = type(model.model.rotary_emb)(config=self._config).to(self.device)

    def __len__(self) -> int:
        return len(self._layers)

    def tensor_names(self, index: int) -> list[str]:
        """The tensors that block `index` needs, without their layer prefix."""
        return list(self._layers[index].state_dict())

    @contextmanager
    def resident(self, index: int, tensors: Mapping[str, torch.Tensor]) -> Iterator[nn.Module]:
        """Block `index` holding `tensors` (keys without the layer prefix), cast to the computing dtype."""
        block = self._layers[index]
        names = self.tensor_names(index)
        # In two steps: asked for both, PyTorch casts in one thread of the host and has the wider copy cross the bus.
        block.load_state_dict({name: tensors[name].to(self.device).to(self.dtype) for name in names}, assign=True)
        block.requires_grad_(False)
        try:
            yield block
        finally:
            block.to("meta")

    def final_norm(self, weight: torch.Tensor) -> nn.Module:
        """The norm before the head, holding `weight`."""
        self._norm.load_state_dict({"weight": weight.to(self.device, self.dtype)}, assign=True)
        return self._norm

    def forward(self, block: nn.Module, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states [batch, tokens, width] through a resident block; positions start at 0, without padding."""
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        masks = create_masks_for_generate(
            config=self._config,
            inputs_embeds=hidden,
            attention_mask=None,
            past_key_values=None,
            position_ids=positions,
        )
        mask = masks[self._config.layer_types[index]] if isinstance(masks, dict) else masks
        output: torch.Tensor = block(
            hidden,
            attention_mask=mask,
            position_ids=positions,
            position_embeddings=self._rotary(hidden, positions),
        )
        return output


def batches(hidden: torch.Tensor) -> list[slice]:
    """Slices of hidden states [windows, tokens, width] for one forward each: one window at least."""
    windows, tokens = hidden.shape[:2]
    step = max(1, (CPU_BATCH_TOKENS if hidden.device.type == "cpu" else GPU_BATCH_TOKENS) // tokens)
    return [slice(start, min(start + step, windows)) for start in range(0, windows, step)]
