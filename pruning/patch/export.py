"""Base + patch as an ordinary Hugging Face folder, which any library loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from pruning.files import folder_in_one_piece
from pruning.model.architecture import naming_class
from pruning.model.checkpoint import Checkpoint
from pruning.model.safetensors import TensorHeader, header_bytes
from pruning.patch.patch import Patch, digest_tensor

_SHARD_BYTES: Final = 4 << 30
_WEIGHT_FILES: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5")


def export(model_dir: str | Path, patch_folder: str | Path, destination: str | Path) -> None:
    """Write base + patch as an ordinary Hugging Face folder: weights, config.json and the base's other files.

    Tensors stream through the patch into shards of at most 4 GiB and are compared with the manifest's digests on
    the way. The folder appears whole or not at all. Raises ValueError as `Patch.open` and `Patch.weights` do.
    """
    base, patch = Checkpoint.open(model_dir), Patch.open(patch_folder)
    with folder_in_one_piece(Path(destination)) as folder:
        write_model(base, patch, folder)


def write_model(base: Checkpoint, patch: Patch, folder: Path) -> None:
    """Write the files of `export` into an empty folder, which the caller lets appear."""
    for entry in sorted(base.path.iterdir()):
        weights = entry.name.endswith(_WEIGHT_FILES) or entry.name.endswith(".index.json")
        if entry.is_file() and not weights and entry.name != "config.json":
            shutil.copyfile(entry, folder / entry.name)
    config = json.dumps(exported_config(base, patch), indent=2)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    _write_shards(folder, patch, base)


def exported_config(base: Checkpoint, patch: Patch) -> dict[str, Any]:
    """config.json of an export."""
    return naming_class(patch.config(base))


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
