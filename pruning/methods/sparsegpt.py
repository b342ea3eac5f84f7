"""SparseGPT (Frantar & Alistarh, arXiv 2301.00774): prune and update the remaining weights. Pure.

Algorithm 1 as in IST-DASLab/sparsegpt: the inverse Hessian's upper Cholesky factor, columns left to right in
blocks, each removal's error spread over the columns to its right. The comparison group is the method's own:
all rows times one block of columns (or N:M groups), with scores from the weights as updated so far.
"""

from __future__ import annotations

from functools import partial

import torch

from pruning.methods.masks import cut, cutoff, pattern_mask


def sparsegpt(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    sparsity: float,
    *,
    pattern: str | None,
    selection: str,
    block: int,
    damp: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The keep mask and the updated weights (float32, zero where dropped), both [d_out, d_in].

    `hessian` is the sum of x x^T [d_in, d_in] float32 and is overwritten; any positive factor cancels. `damp`
    is the share of its mean diagonal that is added to it. The weights of an input that is always zero become
    zero, as upstream. Raises ValueError if the damped Hessian is not positive definite or the pattern does
    not divide d_in.
    """
    updated = weight.to(torch.float32).clone()
    keep = torch.ones_like(updated, dtype=torch.bool)
    if pattern is None and sparsity <= 0:
        return keep, updated
    columns = updated.shape[1]
    dead = hessian.diagonal() == 0
    updated[:, dead] = 0
    factor = _inverse_factor(hessian, dead, damp)
    for start in range(0, columns, block):
        here = slice(start, min(start + block, columns))
        span = updated[:, here]
        importance = (span / factor.diagonal()[here]).square()
        if pattern is None:
            where = cutoff(partial(iter, (importance,)), int(importance.numel() * sparsity), selection)
            (keep[:, here],) = cut([importance], where)
        errors = torch.empty_like(span)
        for column in range(here.start, here.stop):
            offset = column - here.start
            if pattern is not None and column % _group(pattern) == 0:
                group = slice(column, column + _group(pattern))
                keep[:, group] = pattern_mask((updated[:, group] / factor.diagonal()[group]).square(), pattern)
            errors[:, offset] = updated[:, column].masked_fill(keep[:, column], 0) / factor[column, column]
            updated[:, column : here.stop] -= torch.outer(errors[:, offset], factor[column, column : here.stop])
        updated[:, here].masked_fill_(~keep[:, here], 0)
        updated[:, here.stop :] -= errors @ factor[here, here.stop :]
    return keep, updated


def _group(pattern: str) -> int:
    return int(pattern.split(":")[1])


def _inverse_factor(hessian: torch.Tensor, dead: torch.Tensor, damp: float) -> torch.Tensor:
    """Upper U with U^T U = (H + damp * mean(diag H) * I)^-1."""
    diagonal = hessian.diagonal()
    diagonal[dead] = 1
    diagonal += damp * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(hessian)
    if int(failed):
        raise ValueError(
            "sparsegpt: the Hessian is not positive definite; raise sparsegpt_damp or add calibration data."
        )
    factor: torch.Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    return factor
