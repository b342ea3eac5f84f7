"""SparseGPT (Frantar & Alistarh, arXiv 2301.00774): prune, and update the weights that stay.

Algorithm 1 as in IST-DASLab/sparsegpt: the inverse Hessian's upper Cholesky factor, columns left to right in
blocks, each removal's error spread over the columns to its right. The comparison group is the method's own:
all rows times one block of columns (or N:M groups), with scores from the weights as updated so far.

One mask that differs changes every update after it, so what this file computes must not depend on how many threads
there are (`_one_thread`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pruning.methods.method import Method
from pruning.spec import Fraction, Knob, PruneSpec, Whole, always, n_of_m

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class InverseHessian:
    """Of one input: `factor`, upper U [d_in, d_in] with U^T U = H^-1 (damped), and `dead`, the always zero inputs."""

    factor: Tensor
    dead: Tensor


def solve(weight: Tensor, inverse: InverseHessian, sparsity: float, spec: PruneSpec) -> tuple[Tensor, Tensor]:
    """The keep mask and the updated weights (float32, zero where dropped), both [d_out, d_in].

    The weights of an input that is always zero become zero, as upstream. Raises ValueError if the pattern does not
    divide d_in.
    """
    import torch

    from pruning.methods.masks import cut, cutoff, pattern_mask

    assert spec.sparsegpt_block is not None, "resolve() sets sparsegpt_block"
    pattern, selection, block = spec.pattern, spec.selection or "exact", spec.sparsegpt_block
    updated = weight.float().clone()
    keep = torch.ones_like(updated, dtype=torch.bool)
    columns = updated.shape[1]
    members = 1 if pattern is None else n_of_m(pattern)[1]
    factor = inverse.factor
    updated[:, inverse.dead] = 0
    for start in range(0, columns, block):
        here = slice(start, min(start + block, columns))
        span = updated[:, here]
        if pattern is None:
            importance = (span / factor.diagonal()[here]).square()
            where = cutoff(partial(iter, (importance,)), int(importance.numel() * sparsity), selection)
            (keep[:, here],) = cut([importance], where)
        # Columns as rows: each step reads and writes whole cache lines. The arithmetic is that of the columns.
        across, kept = span.T.contiguous(), keep[:, here].T.contiguous()
        errors, corner = torch.empty_like(across), factor[here, here]
        for step in range(len(across)):
            if pattern is not None and step % members == 0:
                group = slice(step, step + members)
                scores = (across[group].T / corner.diagonal()[group]).square()
                kept[group] = pattern_mask(scores, pattern).T
            errors[step] = across[step].masked_fill(kept[step], 0) / corner[step, step]
            across[step + 1 :] -= torch.outer(corner[step, step + 1 :], errors[step])
        keep[:, here] = kept.T
        updated[:, here] = across.masked_fill_(~kept, 0).T
        updated[:, here.stop :] -= errors.T.contiguous() @ factor[here, here.stop :]
    return keep, updated


def prepare(hessian: Tensor, spec: PruneSpec) -> InverseHessian:
    """The factor of (H + damp * mean(diag H) * I)^-1. `hessian` is overwritten; any positive factor of it cancels.

    Raises ValueError if the damped Hessian is not positive definite.
    """
    import torch

    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    diagonal += (spec.sparsegpt_damp or 0.0) * diagonal.mean()
    with _one_thread(hessian):
        lower, failed = torch.linalg.cholesky_ex(hessian)
        if int(failed):
            raise ValueError(
                "sparsegpt: the Hessian is not positive definite; raise sparsegpt_damp or add calibration data."
            )
        return InverseHessian(torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True), dead)


@contextmanager
def _one_thread(where: Tensor) -> Iterator[None]:
    """On a CPU, factorise in one thread: LAPACK divides its sums among the threads it has, so that the last bits of a
    factor, and with them about 1 % of a 2:4 mask, would depend on their number. The forwards, the Hessians and the
    updates do not: their matrix products divide rows among threads, not sums.
    """
    import torch

    threads = torch.get_num_threads()
    if where.device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check(spec: PruneSpec) -> None:
    """Groups of a pattern must not straddle two blocks of columns."""
    if spec.pattern and spec.sparsegpt_block and spec.sparsegpt_block % n_of_m(spec.pattern)[1]:
        raise ValueError(f"sparsegpt_block: must be a multiple of the group of pattern {spec.pattern}; use 128.")


METHOD: Final = Method(
    "sparsegpt",
    calibrated=True,
    solve=solve,
    prepare=prepare,
    check=check,
    knobs={
        "sparsegpt_block": Knob("columns per lazy update; sparsegpt", Whole(1), always(128)),
        "sparsegpt_damp": Knob(
            "share of the mean diagonal added to the Hessian; sparsegpt", Fraction(0, 1), always(0.01)
        ),
    },
)
