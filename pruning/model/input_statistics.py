"""Statistics of the inputs of a block's linears under calibration data: norms and Hessians, gathered by hooks.

They are accumulated in float32 or wider, whatever dtype the forward has. Linears that read the same tensor share
one statistic (`architecture.INPUT_OF`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from pruning.model.architecture import INPUT_OF, LINEARS


@dataclass
class InputStatistics:
    """Sums over all calibration tokens of one block: filled inside `observing`, read afterwards."""

    with_hessians: bool = False
    _squares: dict[str, torch.Tensor] = field(default_factory=dict)
    _grams: dict[str, torch.Tensor] = field(default_factory=dict)

    @contextmanager
    def observing(self, block: nn.Module) -> Iterator[None]:
        """Gather from every forward of `block` inside the `with`."""
        readers = sorted(set(INPUT_OF.values()))
        handles = [block.get_submodule(reader).register_forward_pre_hook(self._hook(reader)) for reader in readers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

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
        return self._grams.pop(reader)

    @property
    def hessian_bytes(self) -> int:
        """Size of the Hessians that are still held."""
        return sum(gram.nbytes for gram in self._grams.values())

    def _hook(self, reader: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def gather(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].detach().flatten(0, -2)
            squares = torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).double().square()
            self._squares[reader] = self._squares[reader] + squares if reader in self._squares else squares
            if self.with_hessians:
                wide = rows.to(torch.float32)
                gram = self._grams.setdefault(reader, wide.new_zeros(wide.shape[1], wide.shape[1]))
                gram.addmm_(wide.T, wide)

        return gather
