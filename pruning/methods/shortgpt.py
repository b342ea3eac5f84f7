"""ShortGPT (Men et al., arXiv 2403.03853): remove the blocks that change their input least.

Block influence is BI = 1 - mean cosine(block input, block output), measured by model/passes.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pruning.methods.method import Method
from pruning.spec import Choice, Knob, PruneSpec, by_preset


def keep_blocks(influence: Sequence[float], spec: PruneSpec) -> tuple[int, ...]:
    """The blocks that stay when the `spec.blocks` of lowest influence are removed at once, ascending.

    Of equal influences the earlier block goes. The official code may remove any block; arXiv 2604.25098's code
    measures inputs only, so its last block always stays (`last_block`). Raises ValueError if there are too few
    blocks.
    """
    assert spec.blocks is not None, "check() demands blocks"
    candidates = len(influence) if spec.last_block == "removable" else len(influence) - 1
    if not 0 < spec.blocks < len(influence) or spec.blocks > candidates:
        most = min(candidates, len(influence) - 1)
        raise ValueError(f"blocks: cannot remove {spec.blocks} of {len(influence)} blocks; at most {most} here.")
    order = sorted(range(candidates), key=lambda layer: (influence[layer], layer))
    removed = set(order[: spec.blocks])
    return tuple(layer for layer in range(len(influence)) if layer not in removed)


METHOD: Final = Method(
    "shortgpt",
    calibrated=True,
    keep_blocks=keep_blocks,
    knobs={
        "last_block": Knob(
            "whether the last block may be removed; shortgpt",
            Choice(("removable", "kept")),
            by_preset("removable", "removable", "kept"),
        )
    },
)
