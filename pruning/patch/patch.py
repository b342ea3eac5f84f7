"""A patch on disk: keep bits per layer, replaced values where a method updates weights, and a manifest.

    manifest.json               what it is, what it belongs to, what comes out (manifest.py)
    layer-00012.safetensors     the keep bits of one block, and its kept values where they changed (block_files.py)

There is a file for each pruned block, numbered as in the base. Decoding streams block by block, so memory holds
one block and those being prefetched. torch is imported inside the functions that make tensors: a plan reads
manifests and must not load it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pruning.files import file_digest, folder_in_one_piece
from pruning.model.architecture import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    LINEARS,
    config_after_removal,
    layer_prefix,
)
from pruning.model.checkpoint import Checkpoint
from pruning.model.safetensors import TensorHeader, header_bytes
from pruning.patch.manifest import MANIFEST, Manifest, read_manifest
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

        It is given the tensor's place in the base and what the patch says of it, and called in up to `ahead` threads.
        """
        calls: list[Callable[[], dict[str, T]]] = [partial(self._outer, base, (EMBEDDING,), read)]
        calls += [partial(self._block, base, *kept, read) for kept in enumerate(self.manifest.kept_layers)]
        calls.append(partial(self._outer, base, (FINAL_NORM, HEAD), read))
        return prefetch(calls, ahead)

    def _outer(
        self, base: Checkpoint, names: Sequence[str], read: Callable[[TensorHeader, Kept | None], T]
    ) -> dict[str, T]:
        return {name: read(base.tensors[name], None) for name in names if name in base.tensors}

    def _block(
        self, base: Checkpoint, position: int, index: int, read: Callable[[TensorHeader, Kept | None], T]
    ) -> dict[str, T]:
        from pruning.patch.block_files import layer_file, read_kept

        headers = {tail: base.tensors[layer_prefix(index) + tail] for tail in base.layer_tails(index)}
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


_SHARD_BYTES: Final = 4 << 30
_WEIGHT_FILES: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5")


def export(model_dir: str | Path, patch_folder: str | Path, destination: str | Path) -> None:
    """Write base + patch as an ordinary Hugging Face folder: weights, config.json and the base's other files.

    Tensors stream through the patch into shards of at most 4 GiB and are compared with the manifest's digests on
    the way. The folder appears whole or not at all. Raises ValueError as `Patch.open` and `Patch.weights` do.
    """
    base, patch = Checkpoint.open(model_dir), Patch.open(patch_folder)
    with folder_in_one_piece(Path(destination)) as folder:
        for entry in sorted(base.path.iterdir()):
            weights = entry.name.endswith(_WEIGHT_FILES) or entry.name.endswith(".index.json")
            if entry.is_file() and not weights and entry.name != "config.json":
                shutil.copyfile(entry, folder / entry.name)
        config = json.dumps(patch.config(base), indent=2)
        (folder / "config.json").write_text(config + "\n", encoding="utf-8")
        _write_shards(folder, patch, base)


def _write_shards(folder: Path, patch: Patch, base: Checkpoint) -> None:
    from pruning.model.tensors import raw_bytes

    names_in_base = base.names_after(patch.manifest.kept_layers)
    headers = {name: base.tensors[old] for name, old in names_in_base.items()}
    shards: list[dict[str, TensorHeader]] = [{}]
    for name, header in headers.items():
        size = sum(each.end - each.begin for each in shards[-1].values())
        if shards[-1] and size + header.end - header.begin > _SHARD_BYTES:
            shards.append({})
        shards[-1][name] = header
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    stream = patch.weights(base)
    for file, shard in zip(names, shards, strict=True):
        with (folder / file).open("wb") as out:
            out.write(header_bytes(shard))
            for name in shard:
                streamed, tensor = next(stream)
                assert streamed == name, "weights() and names_after() name the tensors in the same order"
                if digest_tensor(tensor) != patch.manifest.tensors[name]:
                    raise ValueError(f"{patch.folder}: {name} is not what the manifest promises; prune again.")
                out.write(raw_bytes(tensor))
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(header.end - header.begin for header in headers.values())},
            "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
