"""What a store's own draws tell about the cost of further ones: how fast engines were, and how much room rows take.

Only what `plan` prints comes from here; nothing is decided by it. Rates are known by the rows' own times, so they
include swaps, answers and waiting, and they are those of the machines that made the rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from orchestrator.plan.resolve import ResolvedGrid
from orchestrator.store.store import Store

BREAK_SECONDS = 900.0
"""An engine that committed nothing for so long was not at work: the sweep was stopped, or the engine replaced."""

Made = tuple[float, int]
"""When one row was made, in seconds since the epoch, and how many thinking tokens it added."""


@dataclass(frozen=True)
class Throughput:
    """How fast one model's traces were made."""

    draws: int = 0
    tokens: int = 0
    """Thinking tokens of those draws."""
    seconds: float = 0.0
    """Engine-seconds that they took: two engines side by side take two in a second."""

    @property
    def rate(self) -> float | None:
        """Thinking tokens per second and engine, forced answers and swaps included; None if it is not known."""
        return self.tokens / self.seconds if self.seconds and self.tokens else None

    def __add__(self, other: "Throughput") -> "Throughput":
        return Throughput(self.draws + other.draws, self.tokens + other.tokens, self.seconds + other.seconds)


@dataclass(frozen=True)
class StoreRates:
    """What the store tells about the models of one grid."""

    paces: Mapping[str, Throughput] = field(default_factory=dict)
    """Model path -> how fast its traces were made."""
    tokens: int = 0
    """Thinking tokens that the store holds of the grid's contexts."""
    file_bytes: int = 0
    """The files that these stand in, with their answers and grades."""


def read_rates(store: Store, resolved: ResolvedGrid) -> StoreRates:
    """What `store` tells about `resolved`. Contexts without a folder cost nothing."""
    sizes: dict[str, int] = {}
    for table in ("draws", "grades"):
        for file in store.files.listing(table):
            sizes[file.folder] = sizes.get(file.folder, 0) + file.size
    made: dict[str, dict[str, list[Made]]] = {}
    contexts = {d.context.context_id: v.model_path for v in resolved.variants for d in v.decodings}
    held = {context_id: model for context_id, model in contexts.items() if context_id in sizes}
    tokens = 0
    for context_id, model in held.items():
        for row in store.read("draws", context_id, ["worker", "created_at", "trace_tokens"]).to_pylist():
            made.setdefault(model, {}).setdefault(row["worker"], []).append((row["created_at"], row["trace_tokens"]))
            tokens += row["trace_tokens"]
    warm_up = resolved.grid.runtime.in_flight
    paces = {
        model: sum((measure(rows, warm_up) for rows in workers.values()), Throughput())
        for model, workers in made.items()
    }
    return StoreRates(paces, tokens, sum(sizes[context_id] for context_id in held))


def measure(rows: Iterable[Made], warm_up: int) -> Throughput:
    """How fast one engine made `rows`, breaks left out.

    The first `warm_up` rows after each break only start the clock: so many draws may have been in flight before it, and
    to count them would make an engine look faster than it is. For the same reason fewer than `warm_up` rows after
    those tell nothing.
    """
    told = Throughput()
    for stretch in _stretches(sorted(rows)):
        counted = stretch[warm_up:]
        if len(counted) >= warm_up > 0:
            tokens = sum(length for _, length in counted)
            told += Throughput(len(counted), tokens, counted[-1][0] - stretch[warm_up - 1][0])
    return told


def _stretches(rows: list[Made]) -> list[list[Made]]:
    """Rows in the order of time, cut at breaks."""
    breaks = [0, *(n for n, (one, other) in enumerate(pairwise(rows), 1) if other[0] - one[0] > BREAK_SECONDS)]
    return [rows[start:end] for start, end in pairwise([*breaks, len(rows)])]
