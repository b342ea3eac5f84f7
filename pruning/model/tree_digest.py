"""A checksum of a tensor that a CPU and a GPU both compute at the speed of memory, with the same result.

It tells whether a tensor in an engine's memory is the one that a manifest promises: against stale, exchanged, shifted
or half-written tensors, not against an adversary. Names and identities stay SHA-256 (`pruning.model.tensors.digest`).

Definition. The tensor's little-endian bytes in row-major order, filled up with zeros, are rows of `ROW` signed 64-bit
words x. A row's leaf is two numbers, modulo 2^64, with two fixed tables A and B of odd numbers:

    a = sum of x[c] * A[c]        b = sum of (x[c] >> 32) * B[c]        (>> keeps the sign)

The digest is sha256 of `DTYPE|AxB|` (as in `digest`), all a, then all b, as signed 64-bit little-endian words.

What it sees. An odd factor loses no bit modulo 2^64: a word whose upper half changed changes b, and one of which only
the lower half changed changes a. So every change within one word is seen with certainty, and so are two different
elements that changed places: in one row they differ by less than 2^32 in a half, and the lower 32 bits of a table's
numbers are all different. Any other change of a row leaves its leaf the same with a probability of 2^-128 if it changes
bits of all kinds; in the worst case, where it changes nothing but signs, of 2^-32 for each row that it touches. Moved
rows move their leaves.

Cost. One pass over memory on a CPU, in one thread, by NumPy: 4 GB/s, where SHA-256 makes 1.8. PyTorch's own operators
share every block among their threads and wait for all of them: with two threads on two busy cores they came down to
0.06 GB/s, with 16 beside a starting engine to 0.25. Whoever has cores to spare digests several tensors at once.

PyTorch has no product of an integer matrix and a vector on a GPU, so there the same sums take five elementwise kernels
on blocks, about seven passes over memory: 40 ms for 16.4 GB at 3 TB/s (computed). A kernel of our own could save 30 ms
of a swap, and was not written.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import torch

from pruning.model.tensors import DTYPE_NAME

ROW: Final = 1024
"""Words of a row: a leaf is 16 bytes for 8 KiB."""
_ROW_BYTES: Final = 8 * ROW
_CPU_ROWS: Final = 128
"""Rows of a block, so that its shifted copy stays in a core's cache."""
_DEVICE_ROWS: Final = 8192
"""The same on a device, whose kernels want more at once: 64 MiB, three times of which are in use."""


def _table(label: bytes) -> torch.Tensor:
    """`ROW` odd numbers, int64, from the SHAKE-256 of a label."""
    raw = hashlib.shake_256(label).digest(_ROW_BYTES)
    words = [int.from_bytes(raw[at : at + 8], "little", signed=True) | 1 for at in range(0, _ROW_BYTES, 8)]
    return torch.tensor(words, dtype=torch.int64)


TABLES: Final = (_table(b"tree digest A"), _table(b"tree digest B"))


def tree_digest(tensor: torch.Tensor) -> str:
    """The digest, in hex, computed where the tensor is. On a device it waits for the tensor, on the calling stream."""
    leaves = _leaves(tensor.detach()).cpu().numpy()
    shape = "x".join(map(str, tensor.shape))
    return hashlib.sha256(f"{DTYPE_NAME[tensor.dtype]}|{shape}|".encode() + leaves.tobytes()).hexdigest()


def _leaves(tensor: torch.Tensor) -> torch.Tensor:
    """int64 [2, rows]: a and b of every row."""
    flat = tensor.contiguous().reshape(-1)
    if flat.storage_offset() * flat.itemsize % 8:
        flat = flat.clone()  # words must be aligned
    content = flat.view(torch.uint8)
    whole = content.numel() // _ROW_BYTES * _ROW_BYTES
    first, second = (table.to(content.device) for table in TABLES)
    sums = sums_on_host if content.device.type == "cpu" else sums_on_device
    parts = [sums(block, first, second) for block in _blocks(content[:whole])]
    if whole < content.numel():
        last = torch.zeros(_ROW_BYTES, dtype=torch.uint8, device=content.device)
        last[: content.numel() - whole] = content[whole:]
        parts.append(sums(last.view(torch.int64).view(1, ROW), first, second))
    return torch.cat(parts, dim=1) if parts else torch.empty((2, 0), dtype=torch.int64)


def _blocks(content: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows = content.view(torch.int64).view(-1, ROW)
    return rows.split(_CPU_ROWS if rows.device.type == "cpu" else _DEVICE_ROWS) if len(rows) else ()


def sums_on_host(words: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """a and b of rows of words, int64 [2, rows], as two products of a matrix and a vector, in one thread."""
    rows, upper = words.numpy(), np.right_shift(words.numpy(), 32)
    sums = np.einsum("rc,c->r", rows, first.numpy()), np.einsum("rc,c->r", upper, second.numpy())
    return torch.from_numpy(np.stack(sums))


def sums_on_device(words: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The same by elementwise products, which every device has."""
    return torch.stack(((words * first).sum(1), (words >> 32).mul_(second).sum(1)))
