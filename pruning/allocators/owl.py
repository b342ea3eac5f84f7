"""OWL (Yin et al., arXiv 2310.05175): blocks with more outliers among their Wanda scores are pruned less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from pruning.allocators.allocator import (
    RANGE_KNOBS,
    Allocator,
    Requested,
    Sizes,
    Statistics,
    block_sizes,
    bounds_of,
    same_in_all_parts,
    target_of,
)
from pruning.allocators.formulas import owl
from pruning.methods.wanda import importance
from pruning.spec import Fraction, Knob, PruneSpec, always, by_preset

if TYPE_CHECKING:
    from torch import Tensor

_FLOOR: Final = {"wanda": 0.01, "sparsegpt": 0.01}
"""By method: OWL's code (luuyin/OWL lib/prune_all.py: prune_wanda_outlier, prune_sparsegpt_outlier) and the paper's
wanda_owl replace a sparsity <= 0 by .01. Their magnitude_owl prunes nearly the whole layer there, by a negative index;
here such a layer is left alone.
"""


@dataclass(frozen=True)
class OutlierShare:
    """Percentage, 0..100, of a block's Wanda scores, all linears together, above `multiple` times their mean
    (equation 1).
    """

    multiple: float
    name = "outliers"

    def measure(self, weights: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> float:
        import torch

        # The scores are formed twice rather than kept: together they are as large as the block in float32.
        count = sum(weight.numel() for weight in weights.values())
        scores = (importance(weight, norms[name]) for name, weight in weights.items())
        total = sum(float(each.sum(dtype=torch.float64)) for each in scores)
        limit = self.multiple * (total / count)
        above = sum(int((importance(weight, norms[name]) > limit).sum()) for name, weight in weights.items())
        return 100 * above / count


def sparsities(spec: PruneSpec, sizes: Sizes, statistics: Statistics) -> Requested:
    """Section 3.2, with the spread `owl_lambda`."""
    values = owl(
        statistics[OutlierShare.name],
        block_sizes(sizes),
        target_of(spec),
        spread=cast(float, spec.owl_lambda),
        bounds=bounds_of(spec),
    )
    return same_in_all_parts(values)


def _floor(preset: str, spec: PruneSpec) -> float:
    return _FLOOR.get(spec.method, 0.0) if spec.bounds == "clamp" else 0.0


ALLOCATOR: Final = Allocator(
    "owl",
    sparsities,
    block_statistic=lambda spec: OutlierShare(cast(float, spec.owl_m)),
    calibrated=True,
    knobs={
        **RANGE_KNOBS,
        "owl_m": Knob("outlier multiple of the mean; owl", Fraction(0, 1000), by_preset(5.0, 3.0, 7.0)),
        "owl_lambda": Knob("half the spread of sparsities; owl", Fraction(0, 1), always(0.08)),
        "owl_floor": Knob("replaces a sparsity <= 0 when clamping; owl", Fraction(0, 1), _floor),
    },
)
