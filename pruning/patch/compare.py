"""What a checkpoint changed of its base, as the content of a patch: bit for bit, nothing is rounded or renamed.

A linear of which weights only vanished is keep bits, whether they are all +0 now or, as a product with a mask leaves
them, zeros of their own sign. Where anything else differs in a single bit, its kept values are stored beside
them. Everything else that differs, such as norms, biases, the embedding and the head, is stored whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pruning.methods.prune_block import PrunedBlock
from pruning.model.architecture import LINEARS, PARTS, layer_prefix
from pruning.model.tensors import BITS, read_finite, read_tensor
from pruning.patch.counterparts import Counterparts
from pruning.patch.writer import PatchWriter


def write_differences(pair: Counterparts, writer: PatchWriter) -> None:
    """Have `writer` write what turns the base into the checkpoint.

    Raises ValueError for a weight of the checkpoint that is NaN or infinite.
    """
    for index in pair.kept_layers:
        names = {linear: f"{layer_prefix(index)}{linear}.weight" for linear in LINEARS}
        weights = {linear: read_tensor(pair.base.tensors[name]) for linear, name in names.items()}
        theirs = {linear: read_finite(pair.sources[name]) for linear, name in names.items()}
        block = compare_block(weights, theirs)
        if any(map(pair.changed, names.values())):
            writer.add(index, weights, block, zero_shares(theirs))
        else:
            writer.leave(index, weights, zero_shares(theirs))
    linears = {f"{layer_prefix(index)}{linear}.weight" for index in pair.kept_layers for linear in LINEARS}
    outside = [name for name in pair.sources if name not in linears and pair.changed(name)]
    for name in outside:
        read_finite(pair.sources[name])
    writer.replace({name: pair.sources[name] for name in outside})


def compare_block(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> PrunedBlock:
    """The keep masks and new values that turn each linear of `ours` into that of `theirs`, of its shape and dtype."""
    keep, updated, signed = {}, {}, set()
    for linear, weight in ours.items():
        before, after = (each.view(BITS[each.dtype.itemsize]) for each in (weight, theirs[linear]))
        same, vanished = before == after, after == 0  # as integers: only +0 is 0
        if bool((same | vanished).all()):
            keep[linear] = same
        elif bool((same | (after == before & torch.iinfo(before.dtype).min)).all()):
            keep[linear] = same
            signed.add(linear)
        else:
            keep[linear], updated[linear] = ~vanished, theirs[linear]
    return PrunedBlock(keep, updated, frozenset(signed))


def zero_shares(weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The share of zeros in each part of a block."""
    return {
        part: 1
        - sum(int(weights[name].count_nonzero()) for name in names) / sum(weights[name].numel() for name in names)
        for part, names in PARTS.items()
    }
