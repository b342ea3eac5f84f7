"""What the store holds that looks like a thing asked about and is not it, with the fields in which they differ.

Only what holds something counts: contexts with draws, patches that are complete, answers in the same context. Contexts
that the grid itself asks for are left out: that they differ is what the grid says. Reads one payload per candidate.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.explain.draw_status import StoreIndex
from orchestrator.explain.payload_diff import Difference, Payload, differences
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.store.store import Store
from pruning.spec import describe, from_json
from workers.messages import Context

MOST = 3
"""So many look-alikes are told."""
FEW = 4
"""What differs in more fields than this is another thing, and does not look alike."""


@dataclass(frozen=True)
class SimilarEntry:
    """A thing of the store that differs in few fields from the one asked about."""

    kind: str
    """context, patch or answers."""
    name: str
    label: str
    """The variant in words, where its payload tells it."""
    differences: tuple[Difference, ...]

    @property
    def words(self) -> str:
        return "; ".join(difference.words for difference in self.differences)


class Payloads:
    """The payloads of a survey and, behind them, those of the store; each is read once."""

    def __init__(self, store: Store, resolved: ResolvedGrid) -> None:
        self._store = store
        self._known: dict[str, Payload | None] = dict(resolved.payloads)

    def find(self, name: str) -> Payload | None:
        """What `name` was computed from, or None where nobody knows."""
        if name not in self._known:
            self._known[name] = self._store.payload(name)
        return self._known[name]

    def label(self, name: str) -> str:
        """`wanda + uniform at 0.5` for a context or a patch; empty where the payload does not tell."""
        payload = self.find(name) or {}
        patch = payload if payload.get("what") == "patch" else self.find(payload.get("patch", "")) or {}
        try:
            return describe(from_json(patch["spec"]))
        except (KeyError, TypeError, ValueError):
            return ""


def contexts_outside_grid(present: StoreIndex, resolved: ResolvedGrid) -> list[str]:
    """Contexts that hold draws and are no part of the grid."""
    ours = {decoding.context.context_id for variant in resolved.variants for decoding in variant.decodings}
    return sorted(present.contexts["draws"] - ours)


def similar_entries(
    present: StoreIndex, resolved: ResolvedGrid, context: Context, other_answers: Iterable[str], payloads: Payloads
) -> tuple[SimilarEntry, ...]:
    """The nearest of what the store holds to one context of the grid, nearest first.

    `other_answers`: the answer contexts, beside the context's own, of which its rows hold answers.
    """
    contexts = nearest_to(context.context_id, contexts_outside_grid(present, resolved), "context", payloads)
    found = nearest_to(context.answer_context_id, other_answers, "answers", payloads) + contexts
    if context.patch_id not in present.patches:
        told = {(payloads.find(one.name) or {}).get("patch") for one in contexts}
        planned = {variant.patch_id for variant in resolved.variants}
        found += nearest_to(context.patch_id, sorted(present.patches - told - planned), "patch", payloads)
    return tuple(sorted(found, key=_distance)[:MOST])


def nearest_to(name: str, candidates: Iterable[str], kind: str, payloads: Payloads) -> list[SimilarEntry]:
    """Those of `candidates` that differ from `name` in few fields, nearest first."""
    ours = payloads.find(name)
    found = []
    for other in candidates:
        theirs = payloads.find(other)
        if ours is None or theirs is None or other == name or ours["what"] != theirs.get("what"):
            continue
        found.append(SimilarEntry(kind, other, payloads.label(other), differences(ours, theirs, payloads.find)))
    return sorted((one for one in found if 0 < len(one.differences) <= FEW), key=_distance)[:MOST]


def _distance(one: SimilarEntry) -> tuple[int, str]:
    return len(one.differences), one.name
