"""`manifest.json`: what a patch folder holds and how it was made, sealed by a checksum. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pruning.spec import PruneSpec, from_json, to_json

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
REPLACED: Final = "replaced.safetensors"
"""The file with the tensors outside the linears that a patch replaces, by their names in the base."""


@dataclass(frozen=True)
class LayerRecord:
    """One kept block, numbered as in the base. Sparsities are shares of its weights, 0..1."""

    index: int
    requested: float
    realised: float
    requested_parts: dict[str, float]
    modules: dict[str, float]


@dataclass(frozen=True)
class Canary:
    """log p(token_i | token_<i) in nats of the resulting weights, for i >= 1: one fewer than the tokens."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    rounded: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The first of them by other arithmetic than float32, by the name of its dtype. Patches made before this was
    recorded have none."""


@dataclass(frozen=True)
class FileRecord:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything recorded about a patch; the names of the fields are stored.

    `payload` is the caller's identity payload, kept verbatim; `base` the digest of the checkpoint that the patch
    belongs to; `tensors` the digest of every tensor of base + patch, named as an export names it; `evidence` the
    layer statistics that an allocator or shortgpt decided by; `calibration` the digests of the token windows used;
    `trees` the tree digest of every tensor, by which an engine proves what it holds (model/tree_digest.py). Patches
    made before it was recorded have none, and are proved by `tensors`.
    """

    payload: dict[str, Any]
    base: str
    spec: PruneSpec
    kept_layers: tuple[int, ...]
    layers: tuple[LayerRecord, ...]
    requested: float
    realised: float
    tensors: dict[str, str]
    canary: Canary
    calibration: dict[str, str]
    evidence: dict[str, list[float]]
    files: dict[str, FileRecord]
    seconds: float
    peak_memory_bytes: int
    format: int = FORMAT
    trees: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of the patch on disk, without the manifest."""
        return sum(file.bytes for file in self.files.values())

    @property
    def weights_digest(self) -> str:
        """sha256 hex over the sorted tensor digests: one name for the resulting weights."""
        return hashlib.sha256(json.dumps(sorted(self.tensors.items())).encode()).hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of manifest.json; its last field is the sha256 of all others."""
    value = asdict(manifest) | {"spec": to_json(manifest.spec), "bytes": manifest.bytes}
    return json.dumps(value | {"sha256": _seal(value)}, indent=1).encode()


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a patch folder. Raises ValueError naming the file if it is missing, damaged or another format."""
    file = Path(folder) / MANIFEST
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{file}: missing; the folder is not a patch.") from None
    except ValueError as error:
        raise ValueError(f"{file}: damaged ({error}); prune again.") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else None
        raise ValueError(f"{file}: format {found!r}, this version reads {FORMAT}; prune again.")
    seal = value.pop("sha256", None)
    if seal != _seal(value):
        raise ValueError(f"{file}: damaged (its checksum does not hold); prune again.")
    value.pop("bytes")
    canary = value["canary"]
    return Manifest(
        **value
        | {
            "spec": from_json(value["spec"]),
            "kept_layers": tuple(value["kept_layers"]),
            "layers": tuple(LayerRecord(**record) for record in value["layers"]),
            "canary": Canary(
                tuple(canary["token_ids"]),
                tuple(canary["logprobs"]),
                {dtype: tuple(values) for dtype, values in canary.get("rounded", {}).items()},
            ),
            "files": {name: FileRecord(**record) for name, record in value["files"].items()},
        }
    )


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
