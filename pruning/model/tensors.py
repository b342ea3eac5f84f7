"""Tensors from safetensors files into torch, their raw bytes, digests and masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from pruning.model.architecture import layer_prefix
from pruning.model.checkpoint import Checkpoint
from pruning.model.safetensors import TensorHeader, tensor_digest

TORCH_DTYPE: Final[Mapping[str, torch.dtype]] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
}
DTYPE_NAME: Final[Mapping[torch.dtype, str]] = {dtype: name for name, dtype in TORCH_DTYPE.items()}


def read_tensor(header: TensorHeader, page_locked: bool = False) -> torch.Tensor:
    """The whole tensor, read (not memory-mapped: mapped pages would count as resident memory).

    From page-locked memory a GPU copies eight times as fast, and need not be waited for.
    """
    content = torch.empty(header.end - header.begin, dtype=torch.uint8, pin_memory=page_locked)
    return typed(header, read_into(header, content))


def read_into(header: TensorHeader, content: torch.Tensor) -> torch.Tensor:
    """Fill `content`, uint8 in host memory, with the tensor's bytes. Raises ValueError if the file ends before."""
    left = memoryview(content.numpy())
    with header.file.open("rb", buffering=0) as file:
        file.seek(header.begin)
        while left:
            count = file.readinto(left)  # at most 2 GiB at once
            if not count:
                raise ValueError(f"{header.file}: truncated while reading {header.name!r}; download it again.")
            left = left[count:]
    return content


def typed(header: TensorHeader, content: torch.Tensor) -> torch.Tensor:
    """A tensor's bytes as the tensor."""
    return content.view(TORCH_DTYPE[header.dtype]).reshape(header.shape)


def read_finite(header: TensorHeader) -> torch.Tensor:
    """`read_tensor`. Raises ValueError naming a tensor that has NaN or infinite values."""
    tensor = read_tensor(header)
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"{header.file}: {header.name} has NaN or infinite weights; the checkpoint is damaged: download it again."
        )
    return tensor


def read_rows(header: TensorHeader, rows: np.ndarray) -> torch.Tensor:
    """`tensor[rows]` of a matrix, reading only these rows: an embedding may be larger than a block."""
    width = TORCH_DTYPE[header.dtype].itemsize * header.shape[1]
    mapped = np.memmap(header.file, np.uint8, "r", header.begin, (header.shape[0], width))
    return torch.from_numpy(mapped[rows]).view(TORCH_DTYPE[header.dtype])


def layer_tensors(base: Checkpoint, index: int, page_locked: bool = False) -> dict[str, torch.Tensor]:
    """Every tensor of block `index` as stored, keyed without the layer prefix."""
    headers = {tail: base.tensors[layer_prefix(index) + tail] for tail in base.layer_tails(index)}
    return {tail: read_tensor(header, page_locked) for tail, header in headers.items()}


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes in row-major order, on the host; a view if it already has that layout."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def digest(tensor: torch.Tensor) -> str:
    """sha256 hex of dtype|shape|bytes, equal to `Checkpoint.tensor_digests` of the same values."""
    return tensor_digest(DTYPE_NAME[tensor.dtype], tuple(tensor.shape), [raw_bytes(tensor)])


def masked(weight: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`weight` with +0 where `keep` is False. Multiplying would leave -0, which changes the digest."""
    return weight.masked_fill(~keep, 0)


BITS: Final[Mapping[int, torch.dtype]] = {2: torch.int16, 4: torch.int32}
"""Bytes of a float -> the integers that hold its bits."""


def drop_to_signed_zero(weight: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`weight`, in place, with the zero of its own sign where `keep` is False, as a product with a mask leaves it."""
    bits = weight.view(BITS[weight.dtype.itemsize])
    bits &= keep.to(bits.dtype).neg_() | torch.iinfo(bits.dtype).min
    return weight
