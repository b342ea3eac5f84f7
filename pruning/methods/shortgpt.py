"""ShortGPT (Men et al., arXiv 2403.03853): rank blocks by how little they turn their input, remove the
lowest. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def cosines(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of cos(h_in, h_out), a float64 scalar; inputs [..., width].

    A zero vector has no direction and counts as .5, as the paper's code replaces NaN.
    """
    wide_before, wide_after = before.to(torch.float32), after.to(torch.float32)
    dots = (wide_before * wide_after).sum(dim=-1)
    lengths = wide_before.norm(dim=-1) * wide_after.norm(dim=-1)
    return torch.where(lengths > 0, dots / lengths, 0.5).double().sum()


def kept_layers(influence: Sequence[float], remove: int, *, last_removable: bool) -> tuple[int, ...]:
    """The blocks that stay after removing the `remove` of lowest block influence BI = 1 - mean cosine, once,
    ascending.

    Equal influences fall in layer order. The official code can remove any block; arXiv 2604.25098's code
    measures inputs only, so its last block always stays. Raises ValueError if nothing would be left to remove
    or keep.
    """
    candidates = len(influence) if last_removable else len(influence) - 1
    if not 0 < remove < len(influence) or remove > candidates:
        most = min(candidates, len(influence) - 1)
        raise ValueError(f"blocks: cannot remove {remove} of {len(influence)} blocks; at most {most} here.")
    order = sorted(range(candidates), key=lambda layer: (influence[layer], layer))
    removed = set(order[:remove])
    return tuple(layer for layer in range(len(influence)) if layer not in removed)
