"""Writing a patch: layer files as blocks are pruned, each read back at once; then canary and manifest.

Nothing is trusted until it has been read back. A layer file is decoded from disk, every pruned tensor is compared with
the tree digest taken where it was pruned, every other one with the base's SHA-256, and the SHA-256 of the result, which
names it, is taken of what was read. Then the canary runs on the patch as any reader decodes it, on the device, where
every tensor's tree digest is compared once more.

A GPU must not wait for this. It packs its keep bits and digests its weights itself; threads encode, write and read back
a block while the next ones are pruned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import torch

from pruning.files import file_digest, write_atomically
from pruning.methods.prune_block import PrunedBlock
from pruning.model.architecture import LINEARS, PARTS, layer_prefix
from pruning.model.checkpoint import Checkpoint
from pruning.model.safetensors import TensorHeader, content, header_bytes
from pruning.model.tensors import drop_to_signed_zero, masked, read_tensor
from pruning.model.tree_digest import tree_digest
from pruning.patch.block_files import Kept, read_kept, write_layer
from pruning.patch.canary import make_canary
from pruning.patch.manifest import MANIFEST, REPLACED, FileRecord, LayerRecord, Manifest, encode_manifest
from pruning.patch.patch import Patch, decoded, digest_tensor
from pruning.prefetch import spare_threads

WRITING_THREADS: Final = 8
"""Most threads that encode, write and read back. As many blocks, and one more, may wait for them."""
READING_THREADS: Final = 8
"""Most threads that decode ahead of the canary. Each holds a block."""


@dataclass(frozen=True)
class _Digests:
    sha256: str
    tree: str

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Digests:
        return cls(digest_tensor(tensor), tree_digest(tensor))


@dataclass(frozen=True)
class _WrittenBlock:
    """A layer file that reads back as what was pruned; digests by the tensors' names in the base."""

    file: str
    record: FileRecord
    digests: Mapping[str, _Digests]


class PatchWriter:
    """Writes the layers of one patch into `folder`, which the caller renames into place afterwards.

    Use it in a `with` statement: at its end no thread writes any more.
    """

    def __init__(self, folder: Path, base: Checkpoint) -> None:
        self.folder, self._base = folder, base
        self.layers: list[LayerRecord] = []
        self.zeros = 0
        self._pool = ThreadPoolExecutor(spare_threads(WRITING_THREADS), thread_name_prefix="write")
        self._writing: list[Future[_WrittenBlock]] = []
        self._replaced: dict[str, FileRecord] = {}
        self._pool.submit(base.tensor_digests)  # where they are not cached, they take as long as the canary

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
            linear: drop_to_signed_zero(weight.clone(), pruned.keep[linear])
            if linear in pruned.signed
            else masked(pruned.updated.get(linear, weight), pruned.keep[linear])
            for linear, weight in weights.items()
        }
        kept = {
            name: Kept.of(keep, pruned.updated.get(name), name in pruned.signed) for name, keep in pruned.keep.items()
        }
        self._write(index, kept, {linear: tree_digest(result) for linear, result in results.items()})
        self.leave(index, results, requested)
        return results

    def leave(self, index: int, results: Mapping[str, torch.Tensor], requested: Mapping[str, float]) -> None:
        """Record block `index`, whose resulting linears are the base's own unless they were added."""
        sizes = {linear: weight.numel() for linear, weight in results.items()}
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

    def replace(self, tensors: Mapping[str, TensorHeader]) -> None:
        """Write tensors outside the linears that take the place of the base's, by their names there."""
        if not tensors:
            return
        file = self.folder / REPLACED
        with file.open("wb") as out:
            out.write(header_bytes(tensors))
            for header in tensors.values():
                out.writelines(content(header))
        self._replaced = {file.name: FileRecord(file_digest(file), file.stat().st_size)}

    def _write(self, index: int, kept: Mapping[str, Kept], trees: Mapping[str, str]) -> None:
        if len(self._writing) > WRITING_THREADS:
            self._writing[-1 - WRITING_THREADS].result()  # or blocks would pile up in memory
        self._writing.append(self._pool.submit(self._write_block, index, kept, trees))

    def _write_block(self, index: int, kept: Mapping[str, Kept], trees: Mapping[str, str]) -> _WrittenBlock:
        file, record = write_layer(self.folder, index, kept)
        headers = {linear: self._base.tensors[f"{layer_prefix(index)}{linear}.weight"] for linear in kept}
        digests = {}
        for linear, read in read_kept(self.folder / file, {name: header.numel for name, header in headers.items()}):
            found = _Digests.of(decoded(headers[linear], read))
            if found.tree != trees[linear]:
                raise self._wrong(headers[linear].name)
            digests[headers[linear].name] = found
        return _WrittenBlock(file, record, digests)

    def _digest_untouched(self, name: str) -> _Digests:
        found = _Digests.of(read_tensor(self._base.tensors[name]))
        if found.sha256 != self._base.tensor_digests()[name]:
            raise self._wrong(name)
        return found

    def _wrong(self, name: str) -> ValueError:
        return ValueError(f"{self.folder}: {name} does not decode to what was pruned; the disk or memory is faulty.")

    def finish(self, draft: Manifest, device: str) -> Manifest:
        """Run the canary on the patch and write the manifest last.

        It is `draft`, with the files, the digests and the canary filled in. Raises ValueError at a tensor that is not
        what was pruned, or not the base's.
        """
        originals = self._base.names_after(draft.kept_layers)
        written = [future.result() for future in self._writing]
        digests = {name: found for block in written for name, found in block.digests.items()}
        self._base.tensor_digests()  # once, before the threads ask for them
        draft = replace(draft, files={block.file: block.record for block in written} | self._replaced)
        patch, trees = Patch(self.folder, draft), dict[str, str]()
        digests |= {name: _Digests.of(read_tensor(header)) for name, header in patch.replaced.items()}
        untouched = {
            name: self._pool.submit(self._digest_untouched, name) for name in {*originals.values()} - {*digests}
        }

        def decoded_again() -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in patch.weights(self._base, spare_threads(READING_THREADS), torch.device(device)):
                trees[name] = tree_digest(tensor)
                yield name, tensor

        canary = make_canary(self._base, patch.config(self._base), decoded_again(), device)
        digests |= {name: future.result() for name, future in untouched.items()}
        for name, tree in trees.items():
            if tree != digests[originals[name]].tree:
                raise self._wrong(name)
        tensors = {name: digests[originals[name]].sha256 for name in trees}
        manifest = replace(draft, canary=canary, tensors=tensors, trees=trees)
        write_atomically(self.folder / MANIFEST, encode_manifest(manifest))
        return manifest
