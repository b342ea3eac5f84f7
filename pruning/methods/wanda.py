"""Wanda (Sun et al., arXiv 2306.11695): weights times the norms of their inputs, ranked within each output row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pruning.methods.method import Method
from pruning.spec import PruneSpec

if TYPE_CHECKING:
    from torch import Tensor


def importance(weight: Tensor, norms: Tensor) -> Tensor:
    """|W_ij| * ||X_j||_2 (equation 1; locuslab/wanda), [d_out, d_in] float32."""
    return weight.float().abs().mul_(norms)


def score(weight: Tensor, norms: Tensor, spec: PruneSpec) -> Tensor:
    """`importance`, which OWL's layer statistic counts outliers of, too."""
    return importance(weight, norms)


METHOD: Final = Method("wanda", calibrated=True, score=score, group="row", selection="exact")
