"""One pruned block in one safetensors file: keep bits per linear, and the kept values where they changed.

`bits:` or `huffman:` + linear = its keep bits (codec.py), uint8; `values:` + linear = the kept weights in
row-major order, in the stored dtype.
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
from pruning.patch.codec import ENCODINGS, clear_dropped, decode, encode, unpack
from pruning.patch.manifest import FileRecord

_UNSIGNED: Final = {2: torch.uint16, 4: torch.uint32}


def layer_file(index: int) -> str:
    return f"layer-{index:05d}.safetensors"


def write_layer(
    folder: Path, index: int, keep: Mapping[str, torch.Tensor], updated: Mapping[str, torch.Tensor]
) -> tuple[str, FileRecord]:
    """Write one block's keep masks, bool [d_out, d_in] by linear, and the kept values of the linears in `updated`.

    Returns the file's name and record.
    """
    content: dict[str, torch.Tensor] = {}
    for linear, mask in keep.items():
        mask = mask.cpu()
        encoding, packed = encode(mask.numpy())
        content[f"{encoding}:{linear}"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        if linear in updated:
            content[f"values:{linear}"] = updated[linear].cpu()[mask]
    file = folder / layer_file(index)
    save_file(content, file)
    return file.name, FileRecord(file_digest(file), file.stat().st_size)


@dataclass(frozen=True)
class Kept:
    """What a layer file says of one linear.

    `packed` is its keep bits, uint8 [ceil(weights / 8)]; `values` the kept weights in row-major order, if they changed.
    """

    packed: np.ndarray
    values: torch.Tensor | None

    def apply(self, weight: torch.Tensor) -> None:
        """Turn the base's weight, in host memory, into the variant's."""
        clear_dropped(weight.view(_UNSIGNED[weight.dtype.itemsize]).numpy().reshape(-1), self.packed)
        if self.values is not None:
            weight.masked_scatter_(torch.from_numpy(unpack(self.packed, tuple(weight.shape))), self.values)


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
        yield linear, Kept(packed, content.get(f"values:{linear}"))


def read_layer(file: Path, base: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The pruned linears of one layer file. `base` holds the base's linears, which are overwritten.

    Raises ValueError naming the file if it is damaged.
    """
    for linear, kept in read_kept(file, {linear: weight.numel() for linear, weight in base.items()}):
        kept.apply(base[linear])
        yield linear, base[linear]
