"""Compares two identity payloads field by field, in words: "temperature 0.6 instead of 1.0". Pure.

A context's payload holds its patch's id; where the patch's own payload is known, that is compared in place of the id.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Payload = Mapping[str, Any]
FindPayload = Callable[[str], Payload | None]
"""Returns the payload of an id, or None if it is unknown."""

DIGEST = re.compile(r"[0-9a-f]{64}")
NAMES = {
    "mode": "budget mode",
    "opening": "tokens that open the thinking",
    "end": "end of thinking",
    "eos": "end-of-sequence tokens",
    "wait": "waits",
    "answer_tokens": "answer tokens",
    "early_stop": "tokens that force the answer",
    "bridge": "tokens between thinking and answer",
    "version": "version of the identity",
}
DIGESTS = {
    "patch.base": "base weights differ",
    "patch.tokenizer": "tokenizer differs",
    "patch.spec.path": "the checkpoint's weights differ",
}
"""Fields that hold a sha256, and how a difference in them is reported."""


@dataclass(frozen=True)
class Difference:
    """One field in which two payloads differ; None for a payload without the field."""

    field: str
    """A path: `sampling.temperature`, `patch.spec.sparsity`."""
    ours: Any
    theirs: Any

    @property
    def words(self) -> str:
        """The difference in words, ours first."""
        leaf = self.field.removeprefix("patch.spec.").removeprefix("sampling.")
        if self.field in DIGESTS:
            return f"{DIGESTS[self.field]} ({_shown(self.ours)} instead of {_shown(self.theirs)})"
        if self.field == "patch":
            return f"patch {self.ours} instead of {self.theirs} (not both of their payloads are in the store)"
        if self.field == "limit":
            return f"decoded {_decoded(self.ours)} instead of {_decoded(self.theirs)}"
        if leaf.endswith(".data") and all(_is_digest(side) for side in (self.ours, self.theirs)):
            what = leaf.removesuffix(".data").replace("_", " ")
            return f"{what} data differ (content sha256 {_shown(self.ours)} instead of {_shown(self.theirs)})"
        name = NAMES.get(leaf, leaf.replace(".", " "))
        if isinstance(self.ours, Mapping) or isinstance(self.theirs, Mapping):
            return f"{name} is set {'here only' if self.theirs is None else 'there only'}"
        return f"{name} {_shown(self.ours)} instead of {_shown(self.theirs)}"


def differences(ours: Payload, theirs: Payload, find: FindPayload) -> tuple[Difference, ...]:
    """Every field in which `ours` and `theirs` differ, except those that only follow from another difference."""
    one, other = _unfold(ours, find), _unfold(theirs, find)
    if not (isinstance(one.get("patch"), Mapping) and isinstance(other.get("patch"), Mapping)):
        one, other = ({**whole, "patch": given.get("patch")} for whole, given in ((one, ours), (other, theirs)))
    return tuple(found for found in _compare(one, other, "") if not _follows(found, one, other))


def _unfold(payload: Payload, find: FindPayload) -> dict[str, Any]:
    """A payload as JSON, with the patch's own payload in place of its id."""
    if payload["what"] == "patch":
        return {"patch": _plain(payload)}
    whole = _plain(payload)
    if (patch := find(payload["patch"]) if "patch" in payload else None) is not None:
        whole["patch"] = _plain(patch)
    return whole


def _plain(payload: Payload) -> dict[str, Any]:
    # JSON turns tuples into lists, and keeps floats as written: "temperature 1.0" reads better than "1".
    value: dict[str, Any] = json.loads(json.dumps(payload))
    return value


def _compare(ours: Payload, theirs: Payload, path: str) -> Iterator[Difference]:
    for key in dict.fromkeys((*ours, *theirs)):
        one, other = ours.get(key), theirs.get(key)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _compare(one, other, f"{path}{key}.")
        else:
            yield Difference(f"{path}{key}", one, other)


def _follows(found: Difference, ours: Payload, theirs: Payload) -> bool:
    """Whether a difference only follows from another one; reporting it would suggest a second cause."""
    if found.field.startswith("sampling.") and found.field != "sampling.temperature":
        return any(side["sampling"].get("temperature") == 0 for side in (ours, theirs))  # greedy has no filters
    if found.field in ("patch.tokenizer", "wait_text"):
        return found.ours is None or found.theirs is None  # it matters only with calibration data, or with waits
    return False


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if _is_digest(value):
        return f"{value[:8]}.."
    return value if isinstance(value, str) and value.isprintable() and value else json.dumps(value)


def _decoded(limit: int | None) -> str:
    return "once for all limits" if limit is None else f"for limit {limit} alone"
