"""What is owed, as the core holds it: patches, draws and gradings, and the policy for them. No decisions.

Draws are numbers here, and those that wait are ranges or packed arrays: a context costs the same whether it owes ten
draws or a million.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from orchestrator.scheduler.lengths import LengthEstimator
from workers.messages import Context, Gold, PruneTask


@dataclass(frozen=True)
class Policy:
    """Every number that decides about retries and time, with its reason."""

    engines: int = 1
    """Engines at most at a time."""
    slots: int = 2
    """Devices that engines and prune workers share."""
    attempts: int = 3
    """Losses of a draw that travels alone, of a patch or of a grading, before it is given up."""
    start_seconds: float = 900.0
    """A large model loads for minutes; a worker that is not ready after this is discarded."""
    silence_seconds: float = 300.0
    """A worker at work reports every few seconds; after this silence it hangs."""
    stall_seconds: float = 900.0
    """An engine that reports and generates nothing for so long is stuck."""
    prune_seconds: float = 3600.0
    """Pruning reports nothing until it is done: SparseGPT on a large model takes its time."""
    patch_patience: float = 45.0
    """So long an idle engine waits for a patch of its own before it joins others at theirs: a swap fewer."""
    backoff_seconds: float = 5.0
    """Wait before a failed patch is tried again, doubling: a full disk or a lost mount needs a moment."""
    longest_backoff: float = 60.0
    failed_starts: int = 3
    """Times in a row that workers of one role were lost before any was ready: something is wrong that more attempts
    will not mend. Workers that were starting side by side, on a machine that died, count once."""
    smallest_shard: int = 16
    largest_shard: int = 512


@dataclass(frozen=True)
class RetryGroup:
    """Draws that were lost together, so many times. They travel together, and with no others."""

    numbers: tuple[int, ...]
    losses: int


@dataclass
class RunningShard:
    """A slice that an engine has: what is not committed yet, and how often that was lost before."""

    numbers: tuple[int, ...]
    left: set[int]
    losses: int
    expected: float
    """Thinking tokens that all its draws were expected to take when it was handed out."""

    @property
    def tokens(self) -> float:
        """Expected thinking tokens of what is not committed."""
        return self.expected * len(self.left) / len(self.numbers)

    def rest(self) -> tuple[int, ...]:
        """The draws that are not committed, in the order in which they were handed out."""
        return tuple(number for number in self.numbers if number in self.left)


class PatchState(StrEnum):
    OWED = "owed"
    MAKING = "making"
    HELD = "held"
    FAILED = "failed"


@dataclass
class PatchWork:
    """One patch: in the store, or to be made."""

    task: PruneTask
    state: PatchState
    attempts: int = 0
    not_before: float = 0.0
    refusals: int = 0
    """Engines that were lost because they could not prove that they hold it."""
    nan_losses: int = 0
    """Engines that were lost because it gave NaN, since one of its draws was last committed."""


@dataclass
class ContextWork:
    """The owed draws of one context, and whether its grades are up to date.

    `seeds` draws of each question are numbered one after the other: draw n asks question n // seeds.
    """

    context: Context
    golds: tuple[Gold, ...]
    order: int
    lengths: LengthEstimator
    seeds: int = 1
    limit: int = 0
    """The largest token limit: no trace will be longer."""
    held: Mapping[int, int] = field(default_factory=dict)
    """Draw -> tokens of its trace that are in the store already."""
    running: dict[str, RunningShard] = field(default_factory=dict)
    """Task id -> the slice it evaluates."""
    ungraded: bool = False
    grading: str | None = None
    grade_losses: int = 0
    fresh: Sequence[int] = ()
    """Draws that wait and were never lost, the longest expected last. Sorted when some are taken."""
    lost: deque[RetryGroup] = field(default_factory=deque)
    """Draws that wait to be tried again."""
    _sampled: tuple[tuple[int, int], float] = ((-1, 0), 0.0)
    """What `tokens` last found, and for which number of draws that wait and of traces observed."""
    _sorted_at: int = -1
    """How many traces had been observed when `fresh` was sorted."""

    @property
    def draws(self) -> int:
        """How many draws wait."""
        return len(self.fresh) + sum(len(piece.numbers) for piece in self.lost)

    @property
    def tokens(self) -> float:
        """Expected thinking tokens of the draws that wait, by a sample of them."""
        seen = (len(self.fresh), self.lengths.observed // 256)
        if self._sampled[0] != seen:
            sample = self.fresh[:: max(1, len(self.fresh) // 16)]
            mean = self.expected(sample).sum() / max(1, len(sample))
            self._sampled = (seen, float(mean) * len(self.fresh))
        return self._sampled[1] + sum(float(self.expected(piece.numbers).sum()) for piece in self.lost)

    def expected(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Expected thinking tokens of each of these draws; at least 1, for its answers."""
        whole = np.minimum(self.lengths.expect(), self.limit)[np.asarray(numbers, dtype=np.uint32) // self.seeds]
        held = np.array([self.held.get(number, 0) for number in numbers]) if self.held else 0
        return np.maximum(1.0, whole - held)

    def settled(self) -> bool:
        return not (self.fresh or self.lost or self.running or self.ungraded or self.grading)

    def take_fresh(self, most: int) -> tuple[int, ...]:
        """Remove up to `most` draws that were never lost, those with the longest expected traces first."""
        observed = self.lengths.observed
        if self._sorted_at < 0 or observed >= self._sorted_at * 5 // 4 + 64:
            numbers = np.asarray(self.fresh, dtype=np.uint32)
            ranked = numbers[np.lexsort((-self._turn(numbers), self.expected(self.fresh)))]
            self.fresh = array("I", ranked.tobytes())
            self._sorted_at = observed
        taken = tuple(self.fresh[: -most - 1 : -1])
        self.fresh = self.fresh[: len(self.fresh) - len(taken)]
        return taken

    def _turn(self, numbers: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The order of draws that are expected to be equally long: one seed of every question first, and each variant
        begins elsewhere, so that variants tell each other early which questions are long."""
        question, seed = np.divmod(numbers.astype(np.int64), self.seeds)
        questions = self.lengths.questions
        return seed * questions + (question + 101 * self.order) % questions

    def put_back(self, numbers: Iterable[int]) -> None:
        """Let draws wait that nobody is to blame for."""
        self.fresh = array("I", [*self.fresh, *numbers])
        self._sorted_at = -1

    def drain(self) -> tuple[int, ...]:
        """Remove everything that waits."""
        numbers = (*self.fresh, *(number for piece in self.lost for number in piece.numbers))
        self.fresh = ()
        self.lost.clear()
        return numbers
