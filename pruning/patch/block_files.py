"""One pruned block in one safetensors file: keep bits per linear, and the kept values where they changed.

`bits:` or `huffman:` + linear = its keep bits (codec.py), uint8; `values:` + linear = the kept weights in
row-major order, in the stored dtype; `signed:` + linear, if it is there, says that dropped weights keep their sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pruning.files import file_digest
from pruning.model.tensors import raw_bytes
from pruning.patch.codec import ENCODINGS, clear_dropped, decode, encode, pack, unpack
from pruning.patch.device_bits import pack_on_device
from pruning.patch.manifest import FileRecord

_UNSIGNED: Final = {2: torch.uint16, 4: torch.uint32}
_SIGN: Final = {2: 1 << 15, 4: 1 << 31}


def layer_file(index: int) -> str:
    return f"layer-{index:05d}.safetensors"


@dataclass(frozen=True)
class Kept:
    """What a layer file says of one linear, in host memory.

    `packed` is its keep bits, uint8 [ceil(weights / 8)]; `values` the kept weights in row-major order, if they changed;
    `signed` whether a dropped weight becomes the zero of its own sign, -0 or +0, and not +0.
    """

    packed: np.ndarray
    values: torch.Tensor | None
    signed: bool = False

    @classmethod
    def of(cls, mask: torch.Tensor, updated: torch.Tensor | None, signed: bool = False) -> Kept:
        """From a keep mask, bool [d_out, d_in], and the weights that a method changed. A device packs its own masks."""
        packed = pack(mask.numpy()) if mask.device.type == "cpu" else pack_on_device(mask).cpu().numpy()
        return cls(packed, None if updated is None else updated[mask].cpu(), signed)

    def apply(self, weight: torch.Tensor) -> None:
        """Turn the base's weight, in host memory, into the variant's."""
        size = weight.dtype.itemsize
        left = _SIGN[size] if self.signed else 0
        clear_dropped(weight.view(_UNSIGNED[size]).numpy().reshape(-1), self.packed, left)
        if self.values is not None:
            weight.masked_scatter_(torch.from_numpy(unpack(self.packed, tuple(weight.shape))), self.values)


def write_layer(folder: Path, index: int, kept: Mapping[str, Kept]) -> tuple[str, FileRecord]:
    """Write one block's keep bits and, of the linears whose weights changed, the kept values.

    Returns the file's name and record.
    """
    content: dict[str, torch.Tensor] = {}
    for linear, of_linear in kept.items():
        encoding, coded = encode(of_linear.packed)
        content[f"{encoding}:{linear}"] = torch.frombuffer(bytearray(coded), dtype=torch.uint8)
        if of_linear.values is not None:
            content[f"values:{linear}"] = of_linear.values
        if of_linear.signed:
            content[f"signed:{linear}"] = torch.ones(1, dtype=torch.uint8)
    file = folder / layer_file(index)
    save_file(content, file)
    return file.name, FileRecord(file_digest(file), file.stat().st_size)


def read_kept(file: Path, sizes: Mapping[str, int]) -> Iterator[tuple[str, Kept]]:
    """What a layer file says of each linear, given the linears' numbers of weights.

    Raises ValueError naming the file if it is damaged.
    """
    content = load_file(file)
    for linear, size in sizes.items():
        encoding = next((e for e in ENCODINGS if f"{e}:{linear}" in content), None)
        if encoding is None:
            raise ValueError(f"{file}: has no keep bits for {linear}; prune again.")
        try:
            packed = decode(encoding, raw_bytes(content[f"{encoding}:{linear}"]), size)
        except ValueError as error:
            raise ValueError(f"{file}: {linear}: {error}; prune again.") from None
        yield linear, Kept(packed, content.get(f"values:{linear}"), f"signed:{linear}" in content)


def read_layer(file: Path, base: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The pruned linears of one layer file. `base` holds the base's linears, which are overwritten.

    Raises ValueError naming the file if it is damaged.
    """
    for linear, kept in read_kept(file, {linear: weight.numel() for linear, weight in base.items()}):
        kept.apply(base[linear])
        yield linear, base[linear]
