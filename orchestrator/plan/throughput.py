"""Measures a store's own draws: how fast engines generated them, and how many bytes a token takes on disk.

Only `plan` uses this, to print estimates; nothing is decided by it. Rates come from the rows' own times, so they
include swaps, answers and waiting, and they hold for the machines that generated the rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.store.store import Store

BREAK_SECONDS = 900.0
"""A pause this long between two commits is not work: the sweep was stopped, or the engine replaced."""

LEAST_ROWS = 4
"""Fewer are no rate, not even a rough one."""

TimedRow = tuple[float, int]
"""When one row was committed, in seconds since the epoch, and how many thinking tokens it added."""


@dataclass(frozen=True)
class Throughput:
    """How fast engines generated one model's traces."""

    draws: int = 0
    tokens: int = 0
    """Thinking tokens of those draws."""
    seconds: float = 0.0
    """Engine-seconds they took: two engines spend two in one second."""
    rough: bool = False
    """Whether that were too few draws in a row to tell an engine's speed from what it had in flight at first."""

    @property
    def rate(self) -> float | None:
        """Thinking tokens per engine-second, which includes forced answers and swaps; None if nothing was measured."""
        return self.tokens / self.seconds if self.seconds and self.tokens else None

    def __add__(self, other: "Throughput") -> "Throughput":
        seconds = self.seconds + other.seconds
        return Throughput(self.draws + other.draws, self.tokens + other.tokens, seconds, self.rough or other.rough)


@dataclass(frozen=True)
class StoreRates:
    """What the store says about the models of one grid."""

    throughputs: Mapping[str, Throughput] = field(default_factory=dict)
    """Model path -> how fast its traces were generated."""
    tokens: int = 0
    """Stored thinking tokens of the grid's contexts."""
    file_bytes: int = 0
    """Bytes of the files with these tokens, answers and grades included."""


def read_rates(store: Store, resolved: ResolvedGrid) -> StoreRates:
    """Measure what `store` has of `resolved`. A context without a folder costs no read."""
    sizes: dict[str, int] = {}
    for table in ("draws", "grades"):
        for file in store.files.listing(table):
            sizes[file.folder] = sizes.get(file.folder, 0) + file.size
    rows_of: dict[str, dict[str, list[TimedRow]]] = {}
    contexts = {d.context.context_id: v.model_path for v in resolved.variants for d in v.decodings}
    stored = {context_id: model for context_id, model in contexts.items() if context_id in sizes}
    tokens = 0
    for context_id, model in stored.items():
        for row in store.read("draws", context_id, ["worker", "created_at", "trace_tokens"]).to_pylist():
            rows_of.setdefault(model, {}).setdefault(row["worker"], []).append((row["created_at"], row["trace_tokens"]))
            tokens += row["trace_tokens"]
    warm_up = resolved.grid.runtime.draws_in_flight
    throughputs = {model: of_engines(workers.values(), warm_up) for model, workers in rows_of.items()}
    return StoreRates(throughputs, tokens, sum(sizes[context_id] for context_id in stored))


def of_engines(engines: Iterable[list[TimedRow]], warm_up: int) -> Throughput:
    """How fast engines generated one model's rows; roughly, without each engine's first quarter, if all have too few
    for `warm_up`."""
    engines = list(engines)
    exact = sum((measure(rows, warm_up) for rows in engines), Throughput())
    if exact.rate is not None:
        return exact
    few = sum((measure(rows, max(LEAST_ROWS, len(rows) // 4)) for rows in engines), Throughput())
    return replace(few, rough=True)


def measure(rows: Iterable[TimedRow], warm_up: int) -> Throughput:
    """How fast one engine generated `rows`, without its breaks.

    The first `warm_up` rows after each break only start the clock: that many draws may have been in flight before it,
    and counting them would make the engine look faster than it is. For the same reason, a run with fewer than `warm_up`
    rows after those is not counted.
    """
    total = Throughput()
    for run in _between_breaks(sorted(rows)):
        counted = run[warm_up:]
        if len(counted) >= warm_up > 0:
            tokens = sum(length for _, length in counted)
            total += Throughput(len(counted), tokens, counted[-1][0] - run[warm_up - 1][0])
    return total


def _between_breaks(rows: list[TimedRow]) -> list[list[TimedRow]]:
    """Split rows, which are in order of time, at breaks."""
    breaks = [0, *(n for n, (one, other) in enumerate(pairwise(rows), 1) if other[0] - one[0] > BREAK_SECONDS)]
    return [rows[start:end] for start, end in pairwise([*breaks, len(rows)])]
