"""What a sparsity allocator is: a row of the table in allocators/__init__.py. Imports no torch, so that a plan can
read it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from pruning.allocators.formulas import Bounds
from pruning.model.architecture import PARTS
from pruning.model.checkpoint import Checkpoint
from pruning.spec import Choice, Default, Fraction, Knob, PruneSpec, by_preset

if TYPE_CHECKING:
    from torch import Tensor

Sizes = Mapping[str, Sequence[int]]
"""Part ('attention', 'mlp') -> its prunable parameters in each block."""
Statistics = Mapping[str, Sequence[float]]
"""Name of a layer statistic -> its value for each block."""
Requested = list[dict[str, float]]
"""Per block, the sparsity of its `attention` and of its `mlp` linears."""


class BlockStatistic(Hashable, Protocol):
    """A layer statistic that needs one block at a time. Equal ones are computed once for all jobs, so compare by value:
    a frozen dataclass.
    """

    @property
    def name(self) -> str:
        """The key under which manifests record it."""

    def measure(self, weights: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> float:
        """The statistic of one unpruned block, from its weights [d_out, d_in] and the norms of their inputs [d_in] over
        all calibration tokens, both by linear. `norms` is empty unless the allocator is calibrated.
        """


@dataclass(frozen=True)
class Allocator:
    """A rule that shares a sparsity out over the blocks. The functions get a resolved spec and must be pure."""

    name: str
    sparsities: Callable[[PruneSpec, Sizes, Statistics], Requested]
    """The sparsity of every part of every block; their mean, weighted by size, is `spec.sparsity`."""
    block_statistic: Callable[[PruneSpec], BlockStatistic] | None = None
    """The layer statistic that it decides by, if it needs one block at a time."""
    calibrated: bool = False
    """Whether its block statistic reads the activations of calibration data."""
    gradient_statistics: (
        Callable[[Checkpoint, PruneSpec, str, Callable[[str], None]], tuple[Statistics, dict[str, str]]] | None
    ) = None
    """(checkpoint, spec, device, progress) -> layer statistics from gradients, and the digests of the token windows
    that they were taken on, by field of PruneSpec (`influence_train`, `influence_validation`).
    """
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    """The knobs that it takes: name of the field of PruneSpec -> what it may be, in order of resolution."""
    check: Callable[[PruneSpec], None] = lambda spec: None
    """Raises ValueError for a spec, filled in, whose fields do not go together."""

    @property
    def reads_gradients(self) -> bool:
        """Whether it needs training and validation data."""
        return self.gradient_statistics is not None


RANGE_KNOBS: Final[Mapping[str, Knob]] = {
    "bounds": Knob(
        "what to do with sparsities outside the range; owl, layerif, alphapruning",
        Choice(("waterfill", "clamp")),
        by_preset("waterfill", "clamp", "clamp"),
    ),
    "max_sparsity": Knob(
        "upper bound of a layer's sparsity; owl, layerif, alphapruning",
        Fraction(0, 1),
        by_preset(0.99, 0.99, 1.0),
    ),
}
"""The knobs of every allocator whose formula may leave [0, 1]; `bounds_of` reads them."""


def epsilon_knob(default: Default, matters: Callable[[PruneSpec], bool] = lambda spec: True) -> Knob:
    """The knob `alpha_epsilon` of an allocator whose ratios are `formulas.linear_ratios`."""
    return Knob(
        "half-width of the ratio range 1 +- epsilon; alphapruning and layerif by blocks",
        Fraction(0, 1, closed_top=False),
        default,
        matters,
    )


def bounds_of(spec: PruneSpec) -> Bounds:
    """The range of sparsities that a resolved spec allows."""
    return Bounds(cast(Any, spec.bounds), cast(float, spec.max_sparsity), spec.owl_floor or 0.0)


def target_of(spec: PruneSpec) -> float:
    """The sparsity that a resolved spec asks for."""
    assert spec.sparsity is not None, "resolve() sets sparsity for every method that drops single weights"
    return spec.sparsity


def block_sizes(sizes: Sizes) -> list[int]:
    """Prunable parameters of each block."""
    return [sum(parts) for parts in zip(*sizes.values(), strict=True)]


def same_in_all_parts(per_block: Sequence[float]) -> Requested:
    """One sparsity per block, given to each of its parts."""
    return [dict.fromkeys(PARTS, value) for value in per_block]
