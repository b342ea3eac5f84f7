"""Statistics of the inputs of a block's linears under calibration data: norms or Hessians, gathered by hooks.

They are accumulated in float32 or wider, whatever dtype the forward has. Linears that read the same tensor share
one statistic (`architecture.INPUT_OF`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import nn

from pruning.model.architecture import INPUT_OF, LINEARS

READERS: Final = tuple(dict.fromkeys(INPUT_OF[linear] for linear in LINEARS))
"""One linear of each input, in the order in which a block runs them."""
_CPU_ROWS: Final = 512
"""Inputs squared at a time on a CPU, so that their float32 copy stays in its cache."""
_GRAM_ROWS: Final = 256
"""Rows of a Hessian added at a time, at least."""


class _Seen(Exception):
    """A block's last linear has its inputs; what would follow is not wanted."""


@dataclass
class InputStatistics:
    """Sums over all calibration tokens of one block, filled inside `observing` and read afterwards.

    The squares of the inputs or, `with_hessians`, their products.
    """

    with_hessians: bool = False
    _squares: dict[str, torch.Tensor] = field(default_factory=dict)
    _grams: dict[str, torch.Tensor] = field(default_factory=dict)
    """Lower triangles."""
    _inputs_only: bool = False

    @contextmanager
    def observing(self, block: nn.Module) -> Iterator[None]:
        """Gather from every forward of `block` inside the `with`."""
        handles = [block.get_submodule(reader).register_forward_pre_hook(self._hook(reader)) for reader in READERS]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def gather(self, forward: Callable[[], object]) -> None:
        """Gather from one forward, inside `observing`, and leave its last product out: no outputs are wanted."""
        self._inputs_only = True
        try:
            forward()
        except _Seen:
            pass
        finally:
            self._inputs_only = False

    @property
    def finite(self) -> bool:
        """Whether all inputs, and their squares in float32, were finite."""
        sums = [gram.diagonal() for gram in self._grams.values()] if self.with_hessians else [*self._squares.values()]
        return all(bool(torch.isfinite(each).all()) for each in sums)

    def norms(self, linear: str) -> torch.Tensor:
        """L2 norm of each input of `linear` over all tokens, [d_in] float32."""
        return self._squares[INPUT_OF[linear]].sqrt().to(torch.float32)

    def all_norms(self) -> dict[str, torch.Tensor]:
        """`norms` of every linear of the block."""
        return {linear: self.norms(linear) for linear in LINEARS}

    def take_hessian(self, reader: str) -> torch.Tensor:
        """Sum over tokens of x x^T of the input that `reader` reads first, [d_in, d_in] float32; it is held no longer.

        A block's four Hessians are 4 (3 width^2 + inner^2) bytes until the first is taken.
        """
        gram = self._grams.pop(reader)
        for rows in _row_blocks(len(gram)):
            gram[: rows.start, rows] = gram[rows, : rows.start].T
        return gram

    @property
    def hessian_bytes(self) -> int:
        """Size of the Hessians that are still held."""
        return sum(gram.nbytes for gram in self._grams.values())

    def _hook(self, reader: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def count(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].detach().flatten(0, -2)
            if self.with_hessians:
                self._add_products(reader, rows)
            else:
                squares = _sum_of_squares(rows)
                self._squares[reader] = self._squares[reader] + squares if reader in self._squares else squares
            if self._inputs_only and reader == READERS[-1]:
                raise _Seen

        return count

    def _add_products(self, reader: str, inputs: torch.Tensor) -> None:
        """Add x x^T. It is symmetric: a block of rows up to the diagonal has the bits of the whole product's."""
        width = inputs.shape[1]
        gram = self._grams.setdefault(reader, inputs.new_zeros((width, width), dtype=torch.float32))
        on_tensor_cores = inputs.is_cuda and inputs.dtype is torch.bfloat16
        factors = inputs if on_tensor_cores else inputs.to(torch.float32)
        with _products_of(inputs.dtype):
            for rows in _row_blocks(width):
                left, right = factors[:, rows].T, factors[:, : rows.stop]
                if on_tensor_cores:
                    gram[rows, : rows.stop] += torch.mm(left, right, out_dtype=torch.float32)
                else:
                    gram[rows, : rows.stop].addmm_(left, right)


@contextmanager
def _products_of(dtype: torch.dtype) -> Iterator[None]:
    """Let a CPU that can multiply bfloat16 numbers do so if the float32 matrices hold nothing else.

    A product of two of them is exact in float32, and the sums are float32 as before, in twice the speed.
    """
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    if dtype is torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _row_blocks(size: int) -> Iterator[slice]:
    step = max(_GRAM_ROWS, -(-size // 8))
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _sum_of_squares(rows: torch.Tensor) -> torch.Tensor:
    """Of each column, float64 [d_in]. A GPU reads the rows once; a CPU is six times as fast in blocks."""
    if rows.device.type != "cpu":
        return torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).double().square()
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for block in rows.split(_CPU_ROWS):
        total += block.to(torch.float32, copy=True).square_().sum(0)
    return total
