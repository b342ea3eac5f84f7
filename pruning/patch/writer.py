"""Writing a patch: layer files as blocks are pruned, then read-back, canary and manifest.

Nothing is trusted until it has been read back: the layer files are decoded from disk, every pruned tensor is compared
with the tree digest taken where it was pruned, every other one with the base's SHA-256, and the canary runs on what
was decoded. The SHA-256 of the result, which names it, is taken then, and only then.

A GPU must not wait for this. It packs its keep bits and digests its weights itself; threads encode and write a block
while the next one is pruned, and read, decode and digest blocks ahead of the canary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import torch

from pruning.files import write_atomically
from pruning.methods.prune_block import PrunedBlock
from pruning.model.architecture import LINEARS, PARTS, layer_prefix
from pruning.model.checkpoint import Checkpoint
from pruning.model.safetensors import TensorHeader
from pruning.model.tensors import masked
from pruning.model.tree_digest import tree_digest
from pruning.patch.block_files import Kept, write_layer
from pruning.patch.canary import make_canary
from pruning.patch.manifest import MANIFEST, FileRecord, LayerRecord, Manifest, encode_manifest
from pruning.patch.patch import Patch, decoded, digest_tensor
from pruning.prefetch import spare_threads

WRITING_THREADS: Final = 4
"""Most threads that encode and write. As many blocks, and one more, may wait for them."""
READING_THREADS: Final = 8
"""Most threads that read back. Each holds a block."""


class PatchWriter:
    """Writes the layers of one patch into `folder`, which the caller renames into place afterwards.

    Use it in a `with` statement: at its end no thread writes any more.
    """

    def __init__(self, folder: Path, base: Checkpoint) -> None:
        self.folder, self._base = folder, base
        self.layers: list[LayerRecord] = []
        self.zeros = 0
        self._pool = ThreadPoolExecutor(spare_threads(WRITING_THREADS), thread_name_prefix="write")
        self._writing: list[Future[tuple[str, FileRecord]]] = []
        self._pruned: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)

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
        self._write(index, {name: Kept.of(keep, pruned.updated.get(name)) for name, keep in pruned.keep.items()})
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
            self._pruned[f"{layer_prefix(index)}{linear}.weight"] = tree_digest(result)
        return results

    def _write(self, index: int, kept: Mapping[str, Kept]) -> None:
        if len(self._writing) > WRITING_THREADS:
            self._writing[-1 - WRITING_THREADS].result()  # or blocks would pile up in memory
        self._writing.append(self._pool.submit(write_layer, self.folder, index, kept))

    def finish(self, draft: Manifest, device: str) -> Manifest:
        """Read the patch back, run the canary on it and write the manifest last.

        It is `draft`, with the files, the digests and the canary filled in.
        """
        draft = replace(draft, files=dict(future.result() for future in self._writing))
        patch, tensors, trees = Patch(self.folder, draft), dict[str, str](), dict[str, str]()
        stream = self._read_back(patch, tensors, trees)
        canary = make_canary(self._base, patch.config(self._base), stream, device)
        manifest = replace(draft, canary=canary, tensors=tensors, trees=trees)
        write_atomically(self.folder / MANIFEST, encode_manifest(manifest))
        return manifest

    def _read_back(
        self, patch: Patch, tensors: dict[str, str], trees: dict[str, str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of the result, as decoded from disk; its digests are added to `tensors` and `trees`.

        Raises ValueError at a tensor that is not what was pruned, or not the base's.
        """
        originals, untouched = self._base.names_after(patch.manifest.kept_layers), self._base.tensor_digests()
        for block in patch.blocks(self._base, spare_threads(READING_THREADS), _digested):
            for name, found in block.items():
                pruned = self._pruned.get(originals[name])
                if found.tree != pruned if pruned else found.sha256 != untouched[originals[name]]:
                    raise ValueError(
                        f"{self.folder}: {name} does not decode to what was pruned; the disk or memory is faulty."
                    )
                tensors[name], trees[name] = found.sha256, found.tree
                yield name, found.tensor


@dataclass(frozen=True)
class _Digested:
    tensor: torch.Tensor
    sha256: str
    tree: str


def _digested(header: TensorHeader, kept: Kept | None) -> _Digested:
    tensor = decoded(header, kept)
    return _Digested(tensor, digest_tensor(tensor), tree_digest(tensor))
