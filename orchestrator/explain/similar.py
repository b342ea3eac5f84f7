"""Finds stored entries that are nearly the one asked about, with the fields in which they differ.

Candidates are contexts with draws, complete patches, and other answers in the same context. The grid's own contexts are
left out: the user knows that they differ. Reads one payload per candidate.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.explain.draw_status import StoreIndex
from orchestrator.explain.payload_diff import Difference, Payload, differences
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.store.store import Store
from pruning.spec import describe, from_json
from workers.messages import Context

MAX_ENTRIES = 3
"""Entries reported at most."""
MAX_DIFFERENCES = 4
"""An entry that differs in more fields than this is not similar."""


@dataclass(frozen=True)
class SimilarEntry:
    """A stored entry that differs in few fields from the one asked about."""

    kind: str
    """context, patch or answers."""
    name: str
    """Its id."""
    label: str
    """The variant's label, or empty if the payload does not give it."""
    differences: tuple[Difference, ...]

    @property
    def words(self) -> str:
        return "; ".join(difference.words for difference in self.differences)


class Payloads:
    """Payloads by id: the grid's own, then the store's, each read once."""

    def __init__(self, store: Store, resolved: ResolvedGrid) -> None:
        self._store = store
        self._known: dict[str, Payload | None] = dict(resolved.payloads)

    def find(self, name: str) -> Payload | None:
        """What the id `name` was computed from, or None if neither the grid nor the store knows."""
        if name not in self._known:
            self._known[name] = self._store.payload(name)
        return self._known[name]

    def label(self, name: str) -> str:
        """`wanda + uniform at 0.5` for a context or patch; empty if the payload does not give it."""
        payload = self.find(name) or {}
        patch = payload if payload.get("what") == "patch" else self.find(payload.get("patch", "")) or {}
        try:
            return describe(from_json(patch["spec"]))
        except (KeyError, TypeError, ValueError):
            return ""


def contexts_outside_grid(index: StoreIndex, resolved: ResolvedGrid) -> list[str]:
    """The contexts with draws that the grid does not contain."""
    ours = {decoding.context.context_id for variant in resolved.variants for decoding in variant.decodings}
    return sorted(index.contexts["draws"] - ours)


def similar_entries(
    index: StoreIndex, resolved: ResolvedGrid, context: Context, other_answers: Iterable[str], payloads: Payloads
) -> tuple[SimilarEntry, ...]:
    """The stored entries nearest to one context of the grid, nearest first.

    `other_answers`: the other answer contexts that have answers in the context's rows.
    """
    contexts = nearest_entries(context.context_id, contexts_outside_grid(index, resolved), "context", payloads)
    found = nearest_entries(context.answer_context_id, other_answers, "answers", payloads) + contexts
    if context.patch_id not in index.patches:
        reported = {(payloads.find(one.name) or {}).get("patch") for one in contexts}
        ours = {variant.patch_id for variant in resolved.variants}
        found += nearest_entries(context.patch_id, sorted(index.patches - reported - ours), "patch", payloads)
    return tuple(sorted(found, key=_distance)[:MAX_ENTRIES])


def nearest_entries(name: str, candidates: Iterable[str], kind: str, payloads: Payloads) -> list[SimilarEntry]:
    """The `candidates` that differ from the id `name` in few fields, nearest first."""
    ours = payloads.find(name)
    found = []
    for other in candidates:
        theirs = payloads.find(other)
        if ours is None or theirs is None or other == name or ours["what"] != theirs.get("what"):
            continue
        found.append(SimilarEntry(kind, other, payloads.label(other), differences(ours, theirs, payloads.find)))
    return sorted((one for one in found if 0 < len(one.differences) <= MAX_DIFFERENCES), key=_distance)[:MAX_ENTRIES]


def _distance(one: SimilarEntry) -> tuple[int, str]:
    return len(one.differences), one.name
