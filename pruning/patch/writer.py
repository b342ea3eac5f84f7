"""Writing a patch: layer files as blocks are pruned, then read-back, canary and manifest.

Nothing is trusted until it has been read back: the layer files are decoded from disk, every resulting tensor is
compared with the digest taken while pruning, and the canary runs on what was decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pruning.files import write_atomically
from pruning.methods.prune_block import PrunedBlock
from pruning.model.architecture import LINEARS, PARTS, layer_prefix
from pruning.model.checkpoint import Checkpoint
from pruning.model.tensors import masked
from pruning.model.tree_digest import tree_digest
from pruning.patch.block_files import write_layer
from pruning.patch.canary import make_canary
from pruning.patch.manifest import MANIFEST, FileRecord, LayerRecord, Manifest, encode_manifest
from pruning.patch.patch import Patch, digest_tensor


class PatchWriter:
    """Writes the layers of one patch into `folder`, which the caller renames into place afterwards."""

    def __init__(self, folder: Path, base: Checkpoint) -> None:
        self.folder, self._base = folder, base
        self.layers: list[LayerRecord] = []
        self.files: dict[str, FileRecord] = {}
        self.zeros = 0
        self._changed: dict[str, str] = {}

    def add(
        self,
        index: int,
        weights: Mapping[str, torch.Tensor],
        pruned: PrunedBlock,
        requested: Mapping[str, float],
    ) -> dict[str, torch.Tensor]:
        """Write block `index`; `requested` is by part. Returns the resulting linears, in the stored dtype."""
        results = {
            linear: masked(pruned.updated.get(linear, weight), pruned.keep[linear])
            for linear, weight in weights.items()
        }
        name, record = write_layer(self.folder, index, pruned.keep, pruned.updated)
        self.files[name] = record
        sizes = {linear: weight.numel() for linear, weight in weights.items()}
        zeros = {linear: sizes[linear] - int(result.count_nonzero()) for linear, result in results.items()}
        total = sum(sizes.values())
        self.layers.append(
            LayerRecord(
                index=index,
                requested=sum(requested[part] * sizes[lin] for part, names in PARTS.items() for lin in names) / total,
                realised=sum(zeros.values()) / total,
                requested_parts=dict(requested),
                modules={linear: zeros[linear] / sizes[linear] for linear in LINEARS},
            )
        )
        self.zeros += sum(zeros.values())
        for linear, result in results.items():
            self._changed[f"{layer_prefix(index)}{linear}.weight"] = digest_tensor(result)
        return results

    def tensor_digests(self, kept: Sequence[int]) -> dict[str, str]:
        """Digest of every tensor of the result, named as an export names it."""
        untouched = self._base.tensor_digests()
        return {
            name: self._changed.get(original, untouched[original])
            for name, original in self._base.names_after(kept).items()
        }

    def finish(self, draft: Manifest, device: str) -> Manifest:
        """Read the patch back, run the canary on it and write the manifest last.

        It is `draft`, with the canary and the tree digests filled in.
        """
        patch, trees = Patch(self.folder, draft), dict[str, str]()
        stream = _verified(patch.weights(self._base), draft.tensors, self.folder, trees)
        manifest = replace(draft, canary=make_canary(self._base, patch.config(self._base), stream, device), trees=trees)
        write_atomically(self.folder / MANIFEST, encode_manifest(manifest))
        return manifest


def _verified(
    stream: Iterator[tuple[str, torch.Tensor]], expected: Mapping[str, str], folder: Path, trees: dict[str, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The stream, unchanged; each tensor's tree digest is added to `trees`.

    Raises ValueError at a tensor whose digest is not the expected one.
    """
    for name, tensor in stream:
        if digest_tensor(tensor) != expected[name]:
            raise ValueError(f"{folder}: {name} does not decode to what was pruned; the disk or memory is faulty.")
        trees[name] = tree_digest(tensor)
        yield name, tensor
