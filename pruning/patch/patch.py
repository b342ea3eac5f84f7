"""A patch on disk: keep bits per layer, replaced values where a method updates weights, and a manifest.

    manifest.json               what it is, what it belongs to, what comes out (manifest.py)
    layer-00012.safetensors     the keep bits of one block, and its kept values where they changed (block_files.py)
    replaced.safetensors        what else differs from the base, whole, if anything does

There is a file for each pruned block, numbered as in the base. Decoding streams block by block, so memory holds
one block and those being prefetched. torch is imported inside the functions that make tensors: a plan reads
manifests and must not load it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pruning.files import file_digest
from pruning.model.architecture import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    LINEARS,
    config_after_removal,
    layer_prefix,
)
from pruning.model.checkpoint import Checkpoint
from pruning.model.safetensors import TensorHeader, read_header
from pruning.patch.manifest import MANIFEST, REPLACED, Manifest, read_manifest
from pruning.patch.manifest import Canary as Canary
from pruning.prefetch import prefetch

if TYPE_CHECKING:
    import torch

    from pruning.patch.block_files import Kept

T = TypeVar("T")


def digest_tensor(tensor: torch.Tensor) -> str:
    """sha256 hex of dtype|shape|bytes, as manifests record it; engines compare it after loading weights."""
    from pruning.model.tensors import digest

    return digest(tensor)


@dataclass(frozen=True)
class Patch:
    """A verified patch folder. Construct it with `Patch.open`."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path, verify: bool = True) -> Patch:
        """Read the manifest and, unless told not to, check every file's bytes against it.

        Raises ValueError naming the file that is missing, changed or not listed.
        """
        path = Path(folder)
        manifest = read_manifest(path)
        present = {entry.name for entry in path.iterdir()} - {MANIFEST}
        for name in sorted(present ^ manifest.files.keys()):
            state = "missing" if name in manifest.files else "not part of the patch"
            raise ValueError(f"{path / name}: {state}; prune again.")
        records = manifest.files if verify else {}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashlib releases the GIL
            found = list(pool.map(lambda name: file_digest(path / name), records))
        for (name, record), digest in zip(records.items(), found, strict=True):
            if digest != record.sha256:
                raise ValueError(f"{path / name}: damaged (its sha256 is not the manifest's); prune again.")
        return cls(path, manifest)

    def config(self, base: Checkpoint) -> dict[str, Any]:
        """config.json of base + patch: the base's, without the removed blocks."""
        return config_after_removal(base.config, self.manifest.kept_layers)

    def weights(
        self, base: Checkpoint, ahead: int = 0, device: torch.device | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Base + patch, tensor by tensor in layer order, named as in an export, in the base's dtypes.

        Threads read and decode up to `ahead` blocks before they are asked for; each takes its size in memory. Where
        `device` is a GPU, the thread that iterates has the tensors copied and pruned there (landing.py).
        Raises ValueError if the base is not the checkpoint that the patch was made from.
        """
        if base.digest() != self.manifest.base:
            raise ValueError(
                f"{self.folder}: made from base {self.manifest.base[:16]}, "
                f"but {base.path} is {base.digest()[:16]}; give the checkpoint it was made from."
            )
        if device is None or device.type == "cpu":
            return self._on_host(base, ahead)
        return self._on_device(base, ahead, device)

    def _on_host(self, base: Checkpoint, ahead: int) -> Iterator[tuple[str, torch.Tensor]]:
        for block in self.blocks(base, ahead, decoded):
            yield from block.items()

    def _on_device(self, base: Checkpoint, ahead: int, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
        from pruning.patch.landing import land

        for block in self.blocks(base, ahead, land):
            for name, landed in block.items():
                yield name, landed.on(device)

    def blocks(
        self, base: Checkpoint, ahead: int, read: Callable[[TensorHeader, Kept | None], T]
    ) -> Iterator[dict[str, T]]:
        """What `read` makes of each tensor, by its name in the result: the embedding, each block, and what follows.

        It is given the tensor's place, in the patch where that replaces it whole and else in the base, and what the
        patch says of it, and is called in up to `ahead` threads.
        """
        calls: list[Callable[[], dict[str, T]]] = [partial(self._outer, base, (EMBEDDING,), read)]
        calls += [partial(self._block, base, *kept, read) for kept in enumerate(self.manifest.kept_layers)]
        calls.append(partial(self._outer, base, (FINAL_NORM, HEAD), read))
        return prefetch(calls, ahead)

    def _outer(
        self, base: Checkpoint, names: Sequence[str], read: Callable[[TensorHeader, Kept | None], T]
    ) -> dict[str, T]:
        return {name: read(self._place(base, name), None) for name in names if name in base.tensors}

    def _place(self, base: Checkpoint, name: str) -> TensorHeader:
        return self.replaced.get(name) or base.tensors[name]

    @cached_property
    def replaced(self) -> dict[str, TensorHeader]:
        """The tensors that the patch holds whole, by their names in the base."""
        return read_header(self.folder / REPLACED) if REPLACED in self.manifest.files else {}

    def _block(
        self, base: Checkpoint, position: int, index: int, read: Callable[[TensorHeader, Kept | None], T]
    ) -> dict[str, T]:
        from pruning.patch.block_files import layer_file, read_kept

        headers = {tail: self._place(base, layer_prefix(index) + tail) for tail in base.layer_tails(index)}
        kept: dict[str, Kept] = {}
        if layer_file(index) in self.manifest.files:
            sizes = {linear: headers[f"{linear}.weight"].numel for linear in LINEARS}
            kept = {f"{linear}.weight": k for linear, k in read_kept(self.folder / layer_file(index), sizes)}
        return {layer_prefix(position) + tail: read(header, kept.get(tail)) for tail, header in headers.items()}


def decoded(header: TensorHeader, kept: Kept | None) -> torch.Tensor:
    """A tensor of base + patch, in host memory."""
    from pruning.model.tensors import read_tensor

    weight = read_tensor(header)
    if kept is not None:
        kept.apply(weight)
    return weight
