"""Every block gets the target."""

from __future__ import annotations

from typing import Final

from pruning.allocators.allocator import (
    Allocator,
    Requested,
    Sizes,
    Statistics,
    block_sizes,
    same_in_all_parts,
    target_of,
)
from pruning.allocators.formulas import uniform
from pruning.spec import PruneSpec


def sparsities(spec: PruneSpec, sizes: Sizes, statistics: Statistics) -> Requested:
    """The target, for every part of every block."""
    return same_in_all_parts(uniform(len(block_sizes(sizes)), target_of(spec)))


ALLOCATOR: Final = Allocator("uniform", sparsities)
