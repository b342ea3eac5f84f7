"""A checkpoint on disk, read without torch: configuration, safetensors headers, content digests.

A digest names the content: renaming, re-sharding or copying a checkpoint does not change it, flipping one bit
does (promise same-name-same-bytes). Hashing gigabytes takes seconds, so digests are kept in the cache folder
($PRUNESWEEP_CACHE, else ~/.cache/prunesweep) under the real path, size and mtime of each file; an entry that
does not parse is ignored and rewritten.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pruning.files import cache_folder, write_atomically
from pruning.model.architecture import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    LINEARS,
    PARTS,
    check_config,
    check_names,
    computing_config,
    expected_shape,
    layer_prefix,
    split_layer_name,
)
from pruning.model.safetensors import TensorHeader, digest_on_disk, read_header

FLOATS: Final = ("BF16", "F16", "F32")
_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Checkpoint:
    """A readable checkpoint folder of a supported architecture. Construct it with `Checkpoint.open`."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorHeader]

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read configuration and headers. Raises ValueError that names the file, the rule and the remedy."""
        folder = Path(path)
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give a local Hugging Face checkpoint folder.")
        config = read_object(folder / "config.json")
        check_config(config, str(folder))
        tensors = _read_index(folder)
        check_names(tensors, config, str(folder))
        for header in tensors.values():
            if header.dtype not in FLOATS:
                raise ValueError(
                    f"{header.file}: {header.name!r} has dtype {header.dtype}; "
                    f"weights must be {', '.join(FLOATS)}. Prune the unquantised checkpoint instead."
                )
            expected = expected_shape(header.name, config)
            if expected not in (None, header.shape):
                raise ValueError(
                    f"{header.file}: {header.name!r} has shape {list(header.shape)}, config.json implies "
                    f"{list(expected or ())}; config.json belongs to another model."
                )
        return cls(folder, config, tensors)

    @property
    def num_layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def context_length(self) -> int:
        """The longest sequence that the model can attend to, in tokens (max_position_embeddings)."""
        return int(self.config["max_position_embeddings"])

    @property
    def tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", False))

    @cached_property
    def part_sizes(self) -> dict[str, list[int]]:
        """Part of a block ('attention', 'mlp') -> its prunable parameters in each block."""
        return {
            part: [
                sum(self.tensors[f"{layer_prefix(layer)}{linear}.weight"].numel for linear in linears)
                for layer in range(self.num_layers)
            ]
            for part, linears in PARTS.items()
        }

    def names_after(self, kept: Sequence[int]) -> dict[str, str]:
        """Name in the model that keeps only the blocks `kept` -> name here, from the embedding to the head."""
        names = {EMBEDDING: EMBEDDING}
        for position, index in enumerate(kept):
            new, old = layer_prefix(position), layer_prefix(index)
            names |= {new + tail: old + tail for tail in self.layer_tails(index)}
        return names | {name: name for name in (FINAL_NORM, HEAD) if name in self.tensors}

    def layer_tails(self, index: int) -> list[str]:
        """Tensor names of block `index` without the layer prefix: its linears' weights, then the rest by name."""
        return self._tails[index]

    @cached_property
    def _tails(self) -> dict[int, list[str]]:
        tails = {index: [f"{linear}.weight" for linear in LINEARS] for index in range(self.num_layers)}
        for name in sorted(self.tensors):
            layer = split_layer_name(name)
            if layer is not None and layer[1] not in tails[layer[0]]:
                tails[layer[0]].append(layer[1])
        return tails

    def tensor_digests(self) -> dict[str, str]:
        """sha256 of dtype|shape|bytes of every tensor, in hex; manifests record the same of what a patch makes."""
        return self._tensor_digests

    @cached_property
    def _tensor_digests(self) -> dict[str, str]:
        files = sorted({header.file for header in self.tensors.values()})
        stamps = [(os.path.realpath(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        key = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:32]
        entry = cache_folder() / "digests" / f"{key}.json"
        known = _read_digests(entry)
        if known is not None and known.keys() == self.tensors.keys():
            return known
        names = sorted(self.tensors)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # hashlib releases the GIL
            digests = dict(zip(names, pool.map(lambda n: digest_on_disk(self.tensors[n]), names), strict=True))
        write_atomically(entry, json.dumps(digests).encode())
        return digests

    def digest(self) -> str:
        """sha256 hex over sorted (name, dtype, shape, bytes) and the computing parts of config.json."""
        return content_digest(self.tensor_digests(), self.config)

    def tokenizer_digest(self) -> str:
        """sha256 hex over the tokenizer's files and the chat template. Raises ValueError if there are none."""
        settings = self.path / "tokenizer_config.json"
        template = read_object(settings).get("chat_template") if settings.is_file() else None
        parts: dict[str, str] = {} if template is None else {"chat_template": _text_digest(json.dumps(template))}
        for name in _TOKENIZER_FILES:
            file = self.path / name
            if file.is_file():
                parts[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        if not parts:
            raise ValueError(f"{self.path}: no tokenizer files; copy tokenizer.json beside config.json.")
        return _text_digest(json.dumps(parts, sort_keys=True))


def content_digest(tensors: Mapping[str, str], config: Mapping[str, Any]) -> str:
    """`Checkpoint.digest` of a checkpoint, from the digests of its tensors by name and its config.json."""
    return _text_digest(
        json.dumps({"tensors": sorted(tensors.items()), "config": computing_config(config)}, sort_keys=True)
    )


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises ValueError naming the file."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file}: missing; the folder is not a complete Hugging Face checkpoint.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not valid JSON ({error}); download it again.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file}: expected a JSON object, found {type(value).__name__}.")
    return value


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_digests(entry: Path) -> dict[str, str] | None:
    try:
        value = json.loads(entry.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    well_formed = isinstance(value, dict) and all(isinstance(v, str) and len(v) == 64 for v in value.values())
    return value if well_formed else None


def _read_index(folder: Path) -> dict[str, TensorHeader]:
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.is_file():
        return read_header(single)
    if not index.is_file():
        raise ValueError(
            f"{folder}: neither model.safetensors nor model.safetensors.index.json; "
            "pickle checkpoints are not read: convert them with transformers' save_pretrained."
        )
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index}: no 'weight_map'; download it again.")
    headers = {file: read_header(folder / file) for file in sorted(set(weight_map.values()))}
    lost = [name for name, file in weight_map.items() if name not in headers[file]]
    if lost:
        raise ValueError(f"{folder / weight_map[lost[0]]}: {lost[0]!r} is in the index but not in the file.")
    return {name: headers[file][name] for name, file in weight_map.items()}
