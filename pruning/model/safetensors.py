"""The safetensors format without torch: read and write headers, digest tensors."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_HEADER_LIMIT: Final = 100_000_000  # the format's own bound
_READ: Final = 1 << 24


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a safetensors file; `begin` and `end` are byte offsets in that file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def numel(self) -> int:
        return prod(self.shape)


def read_header(file: Path) -> dict[str, TensorHeader]:
    """Every tensor of a file. Raises ValueError naming the file if it is missing, truncated or damaged."""
    if not file.is_file():
        raise ValueError(f"{file}: missing; the index names it. Download the checkpoint again.")
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
        if length > min(size - 8, _HEADER_LIMIT):
            raise ValueError(f"{file}: truncated or not a safetensors file ({size} bytes); download it again.")
        try:
            entries = dict(json.loads(stream.read(length)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: damaged safetensors header ({error}); download it again.") from None
    headers: dict[str, TensorHeader] = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        try:
            begin, end = (8 + length + int(offset) for offset in entry["data_offsets"])
            header = TensorHeader(name, entry["dtype"], tuple(map(int, entry["shape"])), file, begin, end)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{file}: damaged safetensors header at {name!r}; download it again.") from None
        expected = header.numel * _BITS.get(header.dtype, 0) // 8
        if header.dtype not in _BITS or end - begin != expected:
            raise ValueError(f"{file}: {name!r} ({header.dtype}) does not fill its bytes; download it again.")
        if end > size:
            raise ValueError(f"{file}: truncated: {name!r} ends at byte {end} of {size}; download it again.")
        headers[name] = header
    return headers


def header_bytes(tensors: Mapping[str, TensorHeader]) -> bytes:
    """The header of a new file that holds these tensors one after the other in this order."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers refuses a file without it
    offset = 0
    for name, header in tensors.items():
        size = header.end - header.begin
        entries[name] = {
            "dtype": header.dtype,
            "shape": list(header.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # readers map the data that follows, so keep it aligned
    return struct.pack("<Q", len(text)) + text


def tensor_digest(dtype: str, shape: tuple[int, ...], pieces: Iterable[bytes | memoryview]) -> str:
    """sha256 hex of `DTYPE|AxB|` (the safetensors dtype name) followed by the tensor's little-endian bytes."""
    digest = hashlib.sha256(f"{dtype}|{'x'.join(map(str, shape))}|".encode())
    for chunk in pieces:
        digest.update(chunk)
    return digest.hexdigest()


def digest_on_disk(header: TensorHeader) -> str:
    """`tensor_digest` of a tensor in its file."""
    return tensor_digest(header.dtype, header.shape, content(header))


def content(header: TensorHeader) -> Iterator[bytes]:
    """A tensor's bytes from its file, piece by piece. Raises ValueError if the file ends before."""
    with header.file.open("rb") as stream:
        stream.seek(header.begin)
        left = header.end - header.begin
        while left:
            chunk = stream.read(min(_READ, left))
            if not chunk:
                raise ValueError(f"{header.file}: truncated while reading {header.name!r}; download it again.")
            left -= len(chunk)
            yield chunk
