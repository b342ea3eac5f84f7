"""The sparsity allocators. To add one, see docs/extending.md: a file beside this one, and a line in the table below."""

from __future__ import annotations

from typing import Final

from pruning.allocators import alphapruning, layerif, owl, uniform
from pruning.allocators.allocator import Allocator
from pruning.plugins import Table

DEFAULT: Final = uniform.ALLOCATOR.name
"""The allocator of a spec that names none."""

ALLOCATORS: Final = Table(
    "allocator",
    "prunesweep.allocators",
    Allocator,
    {
        row.name: row
        for row in (
            uniform.ALLOCATOR,
            owl.ALLOCATOR,
            layerif.ALLOCATOR,
            alphapruning.ALLOCATOR,
        )
    },
)
"""Name -> allocator, in the order in which messages list them; those of installed packages last."""
