"""A variant's tensors on their way from files to a GPU: what the host has to do, and what is left to the device.

Threads read the base's tensors from the page cache, which all engines of a node share, into page-locked memory, and
decode the keep bits beside them. One thread then has the device copy both and drop the weights: the base's bytes and
one bit per weight cross the bus, once, while the threads read on. PyTorch keeps page-locked memory that is freed, and
gives it out again when the copies from it have ended, so a swap locks none that an earlier one has used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pruning.model.safetensors import TensorHeader
from pruning.model.tensors import drop_to_signed_zero, read_into, typed
from pruning.patch.block_files import Kept
from pruning.patch.device_bits import unpack_on_device


@dataclass(frozen=True)
class Landed:
    """One tensor of the base in host memory, and what turns it into the variant's, if anything does."""

    weight: torch.Tensor
    packed: torch.Tensor | None = None
    values: torch.Tensor | None = None
    signed: bool = False

    def on(self, device: torch.device) -> torch.Tensor:
        """The variant's tensor on `device`, queued on the calling thread's stream."""
        weight = self.weight.to(device, non_blocking=True)
        if self.packed is None:
            return weight
        keep = unpack_on_device(self.packed.to(device, non_blocking=True), weight.shape)
        if self.signed:
            return drop_to_signed_zero(weight, keep)
        if self.values is None:
            return weight.masked_fill_(~keep, 0)  # +0, as a host's decoding leaves it
        return weight.zero_().masked_scatter_(keep, self.values.to(device, non_blocking=True))


def page_locked(size: int) -> torch.Tensor:
    """uint8 [size] in page-locked memory."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def land(header: TensorHeader, kept: Kept | None, room: Callable[[int], torch.Tensor] = page_locked) -> Landed:
    """Read one tensor of the base and, if it was pruned, what its layer file says of it, into memory from `room`."""
    weight = typed(header, read_into(header, room(header.end - header.begin)))
    if kept is None:
        return Landed(weight)
    packed = room(kept.packed.size)
    packed.numpy()[:] = kept.packed
    if kept.values is None:
        return Landed(weight, packed, None, kept.signed)
    return Landed(weight, packed, room(kept.values.nbytes).view(weight.dtype).copy_(kept.values))
