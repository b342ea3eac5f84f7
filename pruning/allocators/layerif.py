"""LayerIF (arXiv 2505.23811, and as arXiv 2604.25098 uses it): sparsities by how the gradients of training samples
agree with those of validation data. Scores come from layerif_scores.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from pruning.allocators.allocator import (
    RANGE_KNOBS,
    Allocator,
    Requested,
    Sizes,
    Statistics,
    block_sizes,
    bounds_of,
    epsilon_knob,
    same_in_all_parts,
    target_of,
)
from pruning.allocators.formulas import linear_ratios, part_ratios, proportional, smoothed
from pruning.allocators.layerif_cache import InfluenceScores
from pruning.methods import METHODS
from pruning.model.architecture import PARTS
from pruning.model.checkpoint import Checkpoint
from pruning.spec import Choice, Default, Fraction, Knob, PruneSpec, Whole, always, by_preset


def statistics(
    base: Checkpoint, spec: PruneSpec, device: str, progress: Callable[[str], None]
) -> tuple[Statistics, dict[str, str]]:
    """`influence_attention` and `influence_mlp`, or `influence` of whole blocks, and the digests of the windows used.

    Aggregates over training samples: the positive scores only, all of them, or the number of positive ones.
    """
    from pruning.allocators.layerif_scores import influence_scores

    scores, windows = influence_scores(base, spec, device=device, progress=progress)
    return _aggregated(spec, scores), windows


def _aggregated(spec: PruneSpec, scores: InfluenceScores) -> Statistics:
    sign = 1.0 if spec.layerif_sign == "tracin" else -1.0
    parts = {part: [[sign * value for value in row] for row in scores.parts[part]] for part in PARTS}
    if spec.layerif_units == "blocks":
        whole = [
            [a + m for a, m in zip(attention, mlp, strict=True)]
            for attention, mlp in zip(parts["attention"], parts["mlp"], strict=True)
        ]
        return {"influence": [_aggregate(spec, row) for row in whole]}
    return {f"influence_{part}": [_aggregate(spec, row) for row in rows] for part, rows in parts.items()}


def _aggregate(spec: PruneSpec, row: Sequence[float]) -> float:
    if spec.layerif_aggregate == "sum":
        return sum(row)
    positive = [value for value in row if value > 0]
    return float(len(positive)) if spec.layerif_aggregate == "count" else sum(positive)


def sparsities(spec: PruneSpec, sizes: Sizes, statistics: Statistics) -> Requested:
    """One sparsity per block, as in the released LayerIF code, or one per part, as in arXiv 2604.25098's."""
    window, degree = cast(int, spec.layerif_smoothing), spec.layerif_degree or 0
    direction = cast(Any, spec.layerif_direction)
    target, bounds = target_of(spec), bounds_of(spec)
    if spec.layerif_units == "blocks":
        smooth = smoothed(statistics["influence"], window=window, degree=degree)
        ratios = linear_ratios(smooth.tolist(), epsilon=cast(float, spec.alpha_epsilon), direction=direction)
        return same_in_all_parts(proportional(ratios, block_sizes(sizes), target, bounds=bounds))
    low, high = cast(float, spec.layerif_low), cast(float, spec.layerif_high)
    per_part = {}
    for part in PARTS:
        scores = statistics[f"influence_{part}"]
        ratios = part_ratios(scores, low=low, high=high, window=window, degree=degree, direction=direction)
        per_part[part] = proportional(ratios, sizes[part], target, bounds=bounds)
    return [dict(zip(PARTS, values, strict=True)) for values in zip(*per_part.values(), strict=True)]


def check(spec: PruneSpec) -> None:
    """Ratios must rise, the smoothing window must hold its polynomial, and groups must not mix parts."""
    if spec.layerif_units == "parts" and (spec.layerif_low or 0) >= (spec.layerif_high or 0):
        raise ValueError("layerif_low: must be below layerif_high; swap them.")
    if spec.layerif_smoothing and spec.layerif_smoothing <= (spec.layerif_degree or 0):
        raise ValueError("layerif_smoothing: the window must be wider than layerif_degree; widen it or use 0.")
    if spec.group == "layer" and spec.layerif_units == "parts":
        raise ValueError("group: 'layer' would undo an allocation per part; use 'row' or 'matrix'.")


def _by_units(blocks: Any, parts: Any) -> Default:
    return lambda preset, spec: blocks if spec.layerif_units == "blocks" else parts


def _units_are(units: str) -> Callable[[PruneSpec], bool]:
    return lambda spec: spec.layerif_units == units


def _epsilon(preset: str, spec: PruneSpec) -> float:
    # LayerIF's run scripts take .1 with wanda and sparsegpt, .3 with magnitude.
    return 0.1 if METHODS[spec.method].calibrated else 0.3


ALLOCATOR: Final = Allocator(
    "layerif",
    sparsities,
    gradient_statistics=statistics,
    check=check,
    knobs={
        **RANGE_KNOBS,
        "layerif_units": Knob(
            "what gets a sparsity of its own; layerif",
            Choice(("blocks", "parts")),
            by_preset("parts", "blocks", "parts"),
        ),
        "alpha_epsilon": epsilon_knob(_epsilon, _units_are("blocks")),
        "layerif_direction": Knob(
            "what a high score means; layerif",
            Choice(("protect-high", "prune-high")),
            _by_units("prune-high", "protect-high"),
        ),
        "layerif_sign": Knob(
            "tracin: + helps validation; influence: + harms it; layerif",
            Choice(("tracin", "influence")),
            _by_units("influence", "tracin"),
        ),
        "layerif_aggregate": Knob(
            "how samples are summed; layerif", Choice(("positive", "sum", "count")), always("positive")
        ),
        "layerif_smoothing": Knob("Savitzky-Golay window, 0 for none; layerif", Whole(0), _by_units(7, 5)),
        "layerif_degree": Knob(
            "Savitzky-Golay degree; layerif", Whole(0), _by_units(3, 2), lambda spec: bool(spec.layerif_smoothing)
        ),
        "layerif_low": Knob(
            "ratio of the most protected part; layerif by parts",
            Fraction(0, 1),
            always(0.05),
            _units_are("parts"),
        ),
        "layerif_high": Knob(
            "ratio of the least protected part; layerif by parts",
            Fraction(0, 1),
            always(0.40),
            _units_are("parts"),
        ),
        "layerif_hessian": Knob(
            "estimator of influence; layerif",
            Choice(("identity", "datainf")),
            by_preset("identity", "datainf", "identity"),
        ),
    },
)
