"""What a resolved spec needs of the unpruned model before its weights are pruned, and which of it others can share.

Imports no torch, so that a sweep can group its patches by it.
"""

from __future__ import annotations

from pruning.allocators import ALLOCATORS
from pruning.allocators.allocator import BlockStatistic
from pruning.methods import METHODS
from pruning.spec import PruneSpec


def shared_passes(spec: PruneSpec) -> tuple[str, ...]:
    """Names of the passes over one checkpoint whose results a resolved spec can share; equal names, equal passes.

    They are the activations of the unpruned model on some calibration data, statistics of its weights, and gradients.
    None is the calibration pass on pruned activations, which belongs to one spec alone, nor the read of the weights
    that are masked, which costs little.
    """
    names = []
    if reads_dense_activations(spec):
        names.append(f"activations on {spec.calibration}")
    if (statistic := block_statistic(spec)) is not None and not reads_activations(spec.allocator):
        names.append(f"weight statistic {statistic}")
    if spec.allocator is not None and ALLOCATORS[spec.allocator].reads_gradients:
        names.append(f"gradients of {spec.influence_train} along {spec.influence_validation}")
    return tuple(names)


def reads_dense_activations(spec: PruneSpec) -> bool:
    """Whether a resolved spec decides by activations of the unpruned model."""
    method = METHODS[spec.method]
    masked_at_once = spec.propagate == "dense" and not method.updates_weights
    return masked_at_once or reads_activations(spec.allocator) or method.removes_blocks


def reads_activations(allocator: str | None) -> bool:
    """Whether an allocator's block statistic reads activations, which are then those of the unpruned model."""
    return allocator is not None and ALLOCATORS[allocator].calibrated


def block_statistic(spec: PruneSpec) -> BlockStatistic | None:
    """The layer statistic by which a resolved spec's allocator decides, if it needs one block at a time."""
    make = ALLOCATORS[spec.allocator].block_statistic if spec.allocator is not None else None
    return make(spec) if make is not None else None
