"""Magnitude pruning: the importance of a weight is its absolute value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pruning.methods.method import Method
from pruning.spec import PruneSpec

if TYPE_CHECKING:
    from torch import Tensor


def score(weight: Tensor, norms: Tensor, spec: PruneSpec) -> Tensor:
    """|W|."""
    return weight.float().abs()


METHOD: Final = Method("magnitude", score=score)
