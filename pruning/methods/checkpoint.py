"""A checkpoint that somebody else made, as a variant of its base: nothing is pruned here, the two are compared.

What may be a variant of what is decided by patch/counterparts.py, and what the patch holds by patch/compare.py.
"""

from __future__ import annotations

from typing import Final

from pruning.methods.method import Method
from pruning.spec import PruneSpec


def check(spec: PruneSpec) -> None:
    """Raise ValueError for a spec without a checkpoint, or with a label that no table could show."""
    if not spec.path:
        raise ValueError("path: checkpoint makes a variant of a checkpoint of yours; give its folder or hub id.")
    assert spec.label is not None, "resolve() gives every checkpoint a label"
    if not spec.label.isprintable() or spec.label != spec.label.strip() or not spec.label:
        raise ValueError(f"label: {spec.label!r} cannot be shown in a table; give a word or two.")
    if " @ " in spec.label or ": " in spec.label:
        raise ValueError(f"label: {spec.label!r} would be read as a limit or a model; leave out ' @ ' and ': '.")


METHOD: Final = Method("checkpoint", reads_checkpoint=True, check=check)
