"""A resolved spec and the evidence it asked for -> the sparsity requested of every part of every block. Pure,
no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pruning.allocators.formulas import Bounds, linear_ratios, owl, part_ratios, proportional, smoothed, uniform
from pruning.allocators.layerif_cache import InfluenceScores
from pruning.model.architecture import PARTS, layer_prefix
from pruning.model.checkpoint import Checkpoint
from pruning.spec import PruneSpec

Requested = list[dict[str, float]]
"""Per block, the sparsity of its `attention` and of its `mlp` linears."""


def part_sizes(base: Checkpoint) -> dict[str, list[int]]:
    """Prunable parameters of each part, per block."""
    return {
        part: [
            sum(base.tensors[f"{layer_prefix(layer)}{linear}.weight"].numel for linear in linears)
            for layer in range(base.num_layers)
        ]
        for part, linears in PARTS.items()
    }


def influence_evidence(spec: PruneSpec, scores: InfluenceScores) -> dict[str, list[float]]:
    """LayerIF's per-layer sums: `influence_attention` and `influence_mlp`, or `influence` of whole blocks.

    Aggregates over training samples: the positive scores only, all of them, or the number of positive ones.
    """
    sign = 1.0 if spec.layerif_sign == "tracin" else -1.0
    parts = {part: [[sign * value for value in row] for row in scores.parts[part]] for part in PARTS}
    if spec.layerif_units == "blocks":
        whole = [
            [a + m for a, m in zip(attention, mlp, strict=True)]
            for attention, mlp in zip(parts["attention"], parts["mlp"], strict=True)
        ]
        return {"influence": [_aggregate(spec, row) for row in whole]}
    return {f"influence_{part}": [_aggregate(spec, row) for row in rows] for part, rows in parts.items()}


def requested_sparsities(
    spec: PruneSpec, sizes: Mapping[str, Sequence[int]], evidence: Mapping[str, Sequence[float]]
) -> Requested:
    """What every part of every block is asked to give up; the parameter-weighted mean is the spec's
    sparsity.
    """
    assert spec.sparsity is not None, "resolve() sets sparsity for every allocated method"
    target, layers = spec.sparsity, len(sizes["mlp"])
    if spec.allocator == "uniform":
        return _same_for_parts(uniform(layers, target))
    bounds = Bounds(cast(Any, spec.bounds), cast(float, spec.max_sparsity), spec.owl_floor or 0.0)
    blocks = [sum(parts) for parts in zip(*sizes.values(), strict=True)]
    if spec.allocator == "owl":
        return _same_for_parts(
            owl(evidence["outliers"], blocks, target, spread=cast(float, spec.owl_lambda), bounds=bounds)
        )
    if spec.allocator == "alphapruning":
        ratios = linear_ratios(evidence["alpha"], epsilon=cast(float, spec.alpha_epsilon))
        return _same_for_parts(proportional(ratios, blocks, target, bounds=bounds))
    window, degree = cast(int, spec.layerif_smoothing), spec.layerif_degree or 0
    direction = cast(Any, spec.layerif_direction)
    if spec.layerif_units == "blocks":
        smooth = smoothed(evidence["influence"], window=window, degree=degree)
        ratios = linear_ratios(smooth.tolist(), epsilon=cast(float, spec.alpha_epsilon), direction=direction)
        return _same_for_parts(proportional(ratios, blocks, target, bounds=bounds))
    per_part = {
        part: proportional(
            part_ratios(
                evidence[f"influence_{part}"],
                low=cast(float, spec.layerif_low),
                high=cast(float, spec.layerif_high),
                window=window,
                degree=degree,
                direction=direction,
            ),
            sizes[part],
            target,
            bounds=bounds,
        )
        for part in PARTS
    }
    return [{part: values[layer] for part, values in per_part.items()} for layer in range(layers)]


def _same_for_parts(per_block: Sequence[float]) -> Requested:
    return [dict.fromkeys(PARTS, value) for value in per_block]


def _aggregate(spec: PruneSpec, row: Sequence[float]) -> float:
    if spec.layerif_aggregate == "sum":
        return sum(row)
    positive = [value for value in row if value > 0]
    return float(len(positive)) if spec.layerif_aggregate == "count" else sum(positive)
