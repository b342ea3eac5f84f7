"""One block's linears -> keep masks and updated weights, by the method and knobs of a resolved spec. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pruning.methods.masks import cut, cutoff, pattern_mask, row_mask
from pruning.methods.scores import magnitude, ria, wanda
from pruning.methods.sparsegpt import sparsegpt
from pruning.model.input_statistics import InputStatistics
from pruning.spec import PruneSpec


@dataclass(frozen=True)
class PrunedLayer:
    """Keep masks by linear, and new weights (in the stored dtype) for the linears whose kept weights
    changed.
    """

    keep: dict[str, torch.Tensor]
    updated: dict[str, torch.Tensor]


def score(spec: PruneSpec, weight: torch.Tensor, norms: torch.Tensor | None) -> torch.Tensor:
    """Importance [d_out, d_in] of one linear. `norms` [d_in] is None for magnitude only."""
    if spec.method == "magnitude":
        return magnitude(weight)
    assert norms is not None, "check() demands calibration for wanda and ria"
    if spec.method == "wanda":
        return wanda(weight, norms)
    assert spec.ria_power is not None, "resolve() sets ria_power"
    return ria(weight, norms, spec.ria_power)


def prune_by_score(
    spec: PruneSpec,
    weights: Mapping[str, torch.Tensor],
    norms: Mapping[str, torch.Tensor],
    sparsity: Mapping[str, float],
) -> PrunedLayer:
    """Magnitude, wanda and ria in groups within one block; `norms` [d_in] and `sparsity` are by linear."""

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
        assert spec.group == "layer", "group 'model' is ranked over all layers, in walk.py"
        keep = _cut_together(spec, {linear: scored(linear) for linear in weights}, sparsity)
    return PrunedLayer(keep, {})


def prune_by_solver(
    spec: PruneSpec,
    weights: Mapping[str, torch.Tensor],
    statistics: InputStatistics,
    sparsity: Mapping[str, float],
) -> PrunedLayer:
    """SparseGPT, one linear at a time; new weights are rounded to the stored dtype."""
    assert spec.sparsegpt_block is not None
    assert spec.sparsegpt_damp is not None
    keep, updated = {}, {}
    for linear, weight in weights.items():
        mask, values = sparsegpt(
            weight,
            statistics.hessian(linear),
            sparsity[linear],
            pattern=spec.pattern,
            selection=spec.selection or "exact",
            block=spec.sparsegpt_block,
            damp=spec.sparsegpt_damp,
        )
        keep[linear], updated[linear] = mask, values.to(weight.dtype)
    return PrunedLayer(keep, updated)


def _cut_together(
    spec: PruneSpec, scores: Mapping[str, torch.Tensor], sparsity: Mapping[str, float]
) -> dict[str, torch.Tensor]:
    """One ranking over all of `scores`; a group asked for no sparsity keeps everything, ties with its minimum
    too.
    """
    if all(sparsity[linear] <= 0 for linear in scores):
        return {linear: torch.ones_like(value, dtype=torch.bool) for linear, value in scores.items()}
    dropped = sum(int(value.numel() * sparsity[linear]) for linear, value in scores.items())
    assert spec.selection is not None, "resolve() sets selection"
    where = cutoff(scores.values, dropped, spec.selection)
    return dict(zip(scores, cut(scores.values(), where), strict=True))
