"""Weight importance, one function per method. Pure.

Weights are [d_out, d_in]; `norms` is the L2 norm of each input over all calibration tokens, [d_in] float32
(any constant factor cancels in a ranking). Scores are float32, non-negative, larger = more important.
"""

from __future__ import annotations

import torch


def magnitude(weight: torch.Tensor) -> torch.Tensor:
    """|W|."""
    return weight.to(torch.float32).abs()


def wanda(weight: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """|W_ij| * ||X_j||_2 (Sun et al., arXiv 2306.11695, equation 1; locuslab/wanda)."""
    return magnitude(weight).mul_(norms)


def ria(weight: torch.Tensor, norms: torch.Tensor, power: float) -> torch.Tensor:
    """(|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) * ||X_j||^a (Zhang et al., ICLR 2024, equations 2-3).

    A row or column of zeros has no relative importance: its entries score 0 where upstream divides 0 by 0.
    """
    size = magnitude(weight)
    columns = size.sum(dim=0, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
    rows = size.sum(dim=1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
    return (size / columns + size / rows).mul_(norms.pow(power))
