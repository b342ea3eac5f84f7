"""Threshold selection drops everything that equals the last weight to go, and so more than was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pruning.spec import PruneSpec, describe


@dataclass
class Ties:
    """Counts, block by block, what falls beyond the number asked for, and refuses more than `spec.tie_limit` of it.

    `size` is the number of prunable weights of the model. A weight that was zero before is not counted.
    """

    spec: PruneSpec
    size: int
    excess: int = 0
    _fallen: int = 0

    def add(
        self,
        index: int,
        weights: Mapping[str, torch.Tensor],
        keep: Mapping[str, torch.Tensor],
        sparsity: Mapping[str, float],
    ) -> None:
        """Count block `index`: its linears [d_out, d_in], their keep masks and the sparsities asked for, by linear.

        Raises ValueError if more fall beyond those asked for than the limit allows.
        """
        if self.spec.tie_limit is None:
            return
        fallen = sum(int(((weight != 0) & ~keep[linear]).sum()) for linear, weight in weights.items())
        if self.spec.group == "model":
            self._fallen += fallen
            asked = int(self.size * (self.spec.sparsity or 0)) + 1
            excess, size, place = self._fallen - asked, self.size, "all layers together"
            self.excess = max(0, excess)
        else:
            asked = sum(_asked(self.spec, weight, sparsity[linear]) for linear, weight in weights.items())
            size, place = sum(weight.numel() for weight in weights.values()), f"layer {index}"
            excess = fallen - asked
            self.excess += max(0, excess)
        if excess > self.spec.tie_limit * size:
            raise ValueError(
                f"{place}: {(asked + excess) / size:.2%} of the weights would fall where {asked / size:.2%} were asked "
                f"for, since selection 'threshold' drops all that equal the last one; use selection 'exact', which "
                f"drops the first of equals, or allow it by tie_limit (share of a block, now {self.spec.tie_limit})."
            )

    def warning(self) -> str | None:
        """What to tell of a finished job, or None if no more fell than was asked for."""
        if not self.excess:
            return None
        return (
            f"{describe(self.spec)}: {self.excess} weights ({self.excess / self.size:.3%}) more than asked for fell, "
            "since they equal the last one; selection 'exact' drops exactly the number"
        )


def _asked(spec: PruneSpec, weight: torch.Tensor, sparsity: float) -> int:
    """How many of a linear fall if no two are equal: in each group int(n * s), and the threshold itself."""
    if sparsity <= 0:
        return 0
    rows, columns = weight.shape
    return rows * (int(columns * sparsity) + 1) if spec.group == "row" else int(rows * columns * sparsity) + 1
