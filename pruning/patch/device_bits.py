"""Keep bits packed and unpacked where the weights are, so that one bit per weight crosses the bus to a GPU or back.

The layout is the codec's: row-major, first entry in the highest bit.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch.nn.functional import pad

_EIGHT: Final = (128, 64, 32, 16, 8, 4, 2, 1)


def pack_on_device(keep: torch.Tensor) -> torch.Tensor:
    """uint8 [ceil(entries / 8)] from a bool tensor, on its device."""
    flat = keep.reshape(-1).to(torch.uint8)
    eights = pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (eights * _eight(keep.device)).sum(1, dtype=torch.uint8)


def unpack_on_device(packed: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Packed bits as a bool tensor of `shape`, on their device."""
    bits = packed.unsqueeze(1) & _eight(packed.device)
    return bits.ne(0).view(-1)[: shape.numel()].view(shape)


@cache
def _eight(device: torch.device) -> torch.Tensor:
    """Made once for a device: the host waits until such a small copy has arrived, and everything before it."""
    return torch.tensor(_EIGHT, dtype=torch.uint8, device=device)
