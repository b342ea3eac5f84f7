"""LayerIF scores on disk: computed once per weights and data, and reused for every sparsity.

Of several processes on a machine that want the same scores, one computes them and the others wait.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pruning.files import cache_folder, one_at_a_time, write_atomically

VERSION: Final = 1


@dataclass(frozen=True)
class InfluenceScores:
    """`parts[part][layer][sample]`: + <mean validation gradient, gradient of the sample> in TracIn's sign."""

    parts: dict[str, list[list[float]]]


def load_scores(identity: Mapping[str, Any]) -> InfluenceScores | None:
    """The scores saved under this identity (weights, windows, estimator), or None; a damaged file counts as none."""
    try:
        value = json.loads(_entry(identity).read_text("utf-8"))
        return InfluenceScores(value["parts"]) if value["identity"] == dict(identity) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_scores(identity: Mapping[str, Any], scores: InfluenceScores) -> None:
    """Save scores for later runs."""
    write_atomically(_entry(identity), json.dumps({"identity": dict(identity), **asdict(scores)}).encode())


def computing(identity: Mapping[str, Any], progress: Callable[[str], None]) -> AbstractContextManager[None]:
    """For the computing of scores, and the search for another's before it: one process at a time per identity."""
    return one_at_a_time(
        _entry(identity).with_suffix(".lock"),
        lambda: progress("waiting for another process, which computes the scores"),
    )


def _entry(identity: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps([VERSION, dict(identity)], sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "influence" / f"{name}.json"
