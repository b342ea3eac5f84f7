"""The linears of one block -> keep masks and updated weights, as a resolved spec says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import torch

from pruning.methods import METHODS
from pruning.methods.masks import cut, cutoff, pattern_mask, row_mask
from pruning.model.architecture import INPUT_OF
from pruning.model.input_statistics import InputStatistics
from pruning.spec import PruneSpec


@dataclass(frozen=True)
class PrunedBlock:
    """Keep masks by linear, and new weights, in the stored dtype, of the linears whose kept weights changed.

    `signed`: linears whose dropped weights become zeros of their own sign, and not +0.
    """

    keep: dict[str, torch.Tensor]
    updated: dict[str, torch.Tensor]
    signed: frozenset[str] = frozenset()


def score(spec: PruneSpec, weight: torch.Tensor, norms: torch.Tensor | None) -> torch.Tensor:
    """Importance [d_out, d_in] of one linear; only a calibrated method needs, and gets, its `norms` [d_in]."""
    method = METHODS[spec.method]
    assert method.score is not None, f"{spec.method} does not score weights"
    if not method.calibrated:
        return method.score(weight, weight.new_empty(0), spec)
    assert norms is not None, "check() demands calibration"
    return method.score(weight, norms, spec)


def prune_by_score(
    spec: PruneSpec,
    weights: Mapping[str, torch.Tensor],
    norms: Mapping[str, torch.Tensor],
    sparsity: Mapping[str, float],
) -> PrunedBlock:
    """Rank the scores of one block's linears in the spec's groups. `norms` [d_in] and `sparsity` are by linear."""

    def scored(linear: str) -> torch.Tensor:
        return score(spec, weights[linear], norms.get(linear))

    if spec.pattern is not None:
        keep = {linear: pattern_mask(scored(linear), spec.pattern) for linear in weights}
    elif spec.group == "row":
        assert spec.selection is not None, "resolve() sets selection"
        keep = {linear: row_mask(scored(linear), sparsity[linear], spec.selection) for linear in weights}
    elif spec.group == "matrix":
        keep = {}
        for linear in weights:
            keep |= _cut_together(spec, {linear: scored(linear)}, sparsity)
    else:
        assert spec.group == "layer", "prune.py ranks group 'model', over all layers"
        keep = _cut_together(spec, {linear: scored(linear) for linear in weights}, sparsity)
    return PrunedBlock(keep, {})


def prune_by_solver(
    spec: PruneSpec,
    weights: Mapping[str, torch.Tensor],
    statistics: InputStatistics,
    sparsity: Mapping[str, float],
) -> PrunedBlock:
    """Solve for one linear at a time; new weights are rounded to the stored dtype. `sparsity` is by linear.

    Takes the Hessians out of `statistics`, one input at a time: what linears share is computed once, and before the
    next input's is begun it is freed. A linear of which nothing is to go stays as it is.
    """
    method = METHODS[spec.method]
    assert method.solve is not None, f"{spec.method} does not update weights"
    keep, updated = {}, {}
    for reader, linears in groupby(weights, INPUT_OF.__getitem__):
        hessian: torch.Tensor | None = statistics.take_hessian(reader)
        shared = None
        for linear in linears:
            weight = weights[linear]
            if spec.pattern is None and sparsity[linear] <= 0:
                keep[linear], updated[linear] = torch.ones_like(weight, dtype=torch.bool), weight
                continue
            if hessian is not None:
                shared, hessian = method.prepare(hessian, spec), None
            mask, values = method.solve(weight, shared, sparsity[linear], spec)
            keep[linear], updated[linear] = mask, values.to(weight.dtype)
    return PrunedBlock(keep, updated)


def _cut_together(
    spec: PruneSpec, scores: Mapping[str, torch.Tensor], sparsity: Mapping[str, float]
) -> dict[str, torch.Tensor]:
    """Keep masks from one ranking over all of `scores`. At a requested sparsity of 0 everything is kept, even where a
    threshold would drop the minimum.
    """
    if all(sparsity[linear] <= 0 for linear in scores):
        return {linear: torch.ones_like(value, dtype=torch.bool) for linear, value in scores.items()}
    dropped = sum(int(value.numel() * sparsity[linear]) for linear, value in scores.items())
    assert spec.selection is not None, "resolve() sets selection"
    where = cutoff(scores.values, dropped, spec.selection)
    return dict(zip(scores, cut(scores.values(), where), strict=True))
