"""What is owed, as the core sees it: patches, draws, their expected lengths, and gradings, and the policy for them. No
decisions.

Draws are numbers here, and those that wait are ranges or packed arrays, so a context takes little memory however many
draws it owes.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from workers.messages import Context, Gold, PatchRequest


@dataclass(frozen=True)
class Policy:
    """Every number that decides about retries and time, with its reason."""

    engines: int = 1
    """The most engines at a time."""
    slots: int = 2
    """Devices that engines and prune workers share."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Machine -> how many of these devices it has. Empty if there is only one machine."""
    attempts: int = 3
    """Losses after which a draw that runs alone, a patch or a grading is given up."""
    start_seconds: float = 900.0
    """A large model takes minutes to load; a worker that is not ready after this is killed."""
    silence_seconds: float = 300.0
    """A busy worker reports every few seconds; one that is silent for this long hangs."""
    stall_seconds: float = 900.0
    """An engine that reports but has generated nothing for this long is stuck."""
    prune_seconds: float = 3600.0
    """Pruning reports nothing until a patch is done, and SparseGPT on a large model takes long. Times the patches of
    the task that are not made: passes that they share come before the first of them."""
    largest_pruning: int = 16
    """The most patches that are made together: what a killed pruner may lose, and the longest that one device works
    while others wait."""
    patch_patience: float = 45.0
    """How long an idle engine waits for a patch of its own before it joins engines at another: this saves a swap."""
    backoff_seconds: float = 5.0
    """Wait before a failed patch is tried again, doubled each time: a full disk or a lost mount needs a moment."""
    longest_backoff: float = 60.0
    failed_starts: int = 3
    """How many workers of one role may be lost in a row before one is ready; after that, something is wrong that more
    attempts will not mend. Workers that were starting at the same time, on a machine that died, count once."""
    smallest_shard: int = 16
    """The fewest draws of a shard, as long as that many wait."""
    largest_shard: int = 512


class LengthEstimator:
    """Expected trace lengths of one model's questions, in tokens: what the same question took under other variants,
    else what its group takes.

    Lengths decide only the order of work and estimates of what is left, never an answer. A trace cut by a limit counts
    as long as the limit: what matters is that long ones start first.
    """

    def __init__(self, groups: Sequence[str], defaults: Sequence[float]) -> None:
        """For each question, by its number: its group (a benchmark, say), whose other questions tell how long its
        traces may be, and the length to expect until some have been observed."""
        names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
        self._group = array("H", (names[name] for name in groups))
        self._defaults = array("d", defaults)
        self._sums = array("d", bytes(8 * len(groups)))
        self._counts = array("I", bytes(4 * len(groups)))
        self._group_sums = [0.0] * len(names)
        self._group_counts = [0] * len(names)
        self.questions = len(groups)
        self.observed = 0
        """How many lengths have been observed."""

    def observe(self, question: int, tokens: int) -> None:
        """Take in the length of a trace."""
        self.observed += 1
        self._sums[question] += tokens
        self._counts[question] += 1
        group = self._group[question]
        self._group_sums[group] += tokens
        self._group_counts[group] += 1

    def expect(self) -> NDArray[np.float64]:
        """The expected length of each question's traces, where no limit cuts them; shape (questions,)."""
        counts = np.asarray(self._counts)
        group_means = np.asarray(self._group_sums) / np.maximum(1, self._group_counts)
        # Short traces end first, so the group's mean is biased low at the start and may only raise the default.
        unobserved = np.maximum(np.asarray(self._defaults), group_means[np.asarray(self._group)])
        return np.where(counts, np.asarray(self._sums) / np.maximum(1, counts), unobserved)


@dataclass(frozen=True)
class RetryGroup:
    """Draws that were lost together, `losses` times so far. They run together and with no others."""

    numbers: tuple[int, ...]
    losses: int


@dataclass
class RunningShard:
    """A shard that an engine has."""

    numbers: tuple[int, ...]
    left: set[int]
    """Draws that are neither committed nor given up."""
    losses: int
    """How often its draws were lost before."""
    expected_tokens: float
    """Thinking tokens that all its draws were expected to take when it was assigned."""
    probe: bool
    """It was assigned while its patch was suspected."""

    @property
    def tokens_left(self) -> float:
        """Expected thinking tokens of the draws that are left."""
        return self.expected_tokens * len(self.left) / len(self.numbers)

    def numbers_left(self) -> tuple[int, ...]:
        """The draws that are left, in the order in which they were assigned."""
        return tuple(number for number in self.numbers if number in self.left)


class PatchState(StrEnum):
    OWED = "owed"
    MAKING = "making"
    STORED = "stored"
    FAILED = "failed"


@dataclass
class PatchWork:
    """One patch: in the store, or to be made."""

    request: PatchRequest
    model: str
    """As in `Shape`."""
    state: PatchState
    passes: tuple[str, ...] = ()
    """Names of passes over its model that other patches may need, too."""
    making: str | None = None
    """Task id of the pruning that is under way."""
    alone: bool = False
    """It was lost in company, and nobody knows by whose fault: it is made in a task of its own."""
    attempts: int = 0
    not_before: float = 0.0
    """When it may be tried again."""
    unproved_swaps: int = 0
    """Engines that were lost because they could not prove that they hold it."""
    sampled: bool = False
    """A draw of it has been committed, in this run or before: not every draw gives NaN."""
    nan_losses: int = 0
    """Engines that died of NaN before it was sampled: the first one, and then those that ran a probe."""

    @property
    def patch_id(self) -> str:
        return self.request.patch_id

    @property
    def suspected(self) -> bool:
        """Whether every draw of it may give NaN. It then gets one draw at a time, alone on an engine: a probe."""
        return self.nan_losses > 0 and not self.sampled


@dataclass
class ContextWork:
    """The owed draws of one context, and whether its grades are up to date.

    The `seeds` draws of each question have consecutive numbers: draw n is of question n // seeds.
    """

    context: Context
    golds: tuple[Gold, ...]
    order: int
    """Position in the grid."""
    lengths: LengthEstimator
    seeds: int = 1
    limit: int = 0
    """The largest token limit: no trace will be longer."""
    stored_tokens: Mapping[int, int] = field(default_factory=dict)
    """Draw -> tokens of its trace that are in the store already."""
    running: dict[str, RunningShard] = field(default_factory=dict)
    """Task id -> the shard."""
    ungraded: bool = False
    """The store has answers of it without a grade."""
    grading: str | None = None
    """Task id of the grading that is under way."""
    grade_losses: int = 0
    fresh: Sequence[int] = ()
    """Draws that wait and were never lost, the longest expected last. Sorted when some are taken."""
    retries: deque[RetryGroup] = field(default_factory=deque)
    """Draws that were lost and wait to be tried again."""
    _estimate: tuple[tuple[int, int], float] = ((-1, 0), 0.0)
    """The last estimate for `fresh`, and for how many fresh draws and observed traces it was made."""
    _sorted_at: int = -1
    """How many traces had been observed when `fresh` was sorted; -1 if it is not sorted."""

    @property
    def waiting_draws(self) -> int:
        return len(self.fresh) + sum(len(group.numbers) for group in self.retries)

    @property
    def waiting_tokens(self) -> float:
        """Expected thinking tokens of the draws that wait, estimated from a sample of them."""
        basis = (len(self.fresh), self.lengths.observed // 256)
        if self._estimate[0] != basis:
            sample = self.fresh[:: max(1, len(self.fresh) // 16)]
            mean = self.expected_tokens(sample).sum() / max(1, len(sample))
            self._estimate = (basis, float(mean) * len(self.fresh))
        return self._estimate[1] + sum(float(self.expected_tokens(group.numbers).sum()) for group in self.retries)

    def expected_tokens(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Expected new thinking tokens of each of these draws; at least 1, for its answers."""
        whole = np.minimum(self.lengths.expect(), self.limit)[np.asarray(numbers, dtype=np.uint32) // self.seeds]
        stored = np.array([self.stored_tokens.get(number, 0) for number in numbers]) if self.stored_tokens else 0
        return np.maximum(1.0, whole - stored)

    def finished(self) -> bool:
        return not (self.fresh or self.retries or self.running or self.ungraded or self.grading)

    def take_fresh(self, most: int) -> tuple[int, ...]:
        """Remove up to `most` draws that were never lost, those with the longest expected traces first."""
        self._sort_fresh()
        taken = tuple(self.fresh[: -most - 1 : -1])
        self.fresh = self.fresh[: len(self.fresh) - len(taken)]
        return taken

    def take_probe(self) -> RetryGroup:
        """Remove one draw: the one with the shortest expected trace that was never lost, else one that was."""
        if self.fresh:
            self._sort_fresh()
            taken, self.fresh = self.fresh[0], self.fresh[1:]
            return RetryGroup((taken,), 0)
        group = self.retries.popleft()
        if rest := group.numbers[1:]:
            self.retries.appendleft(RetryGroup(rest, group.losses))
        return RetryGroup(group.numbers[:1], group.losses)

    def _sort_fresh(self) -> None:
        observed = self.lengths.observed
        if self._sorted_at < 0 or observed >= self._sorted_at * 5 // 4 + 64:
            numbers = np.asarray(self.fresh, dtype=np.uint32)
            ranked = numbers[np.lexsort((-self._turn(numbers), self.expected_tokens(self.fresh)))]
            self.fresh = array("I", ranked.tobytes())
            self._sorted_at = observed

    def _turn(self, numbers: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The order of draws with equal expectations: one seed of every question first, and each variant starts at
        another question, so that each question's length is learned early. Pays at 48 and 64 engines, by 0.01 to 0.03 of
        the lower bound."""
        question, seed = np.divmod(numbers.astype(np.int64), self.seeds)
        questions = self.lengths.questions
        return seed * questions + (question + 101 * self.order) % questions

    def put_back(self, numbers: Iterable[int]) -> None:
        """Let draws wait as if they had never been assigned."""
        self.fresh = array("I", [*self.fresh, *numbers])
        self._sorted_at = -1

    def drain(self) -> tuple[int, ...]:
        """Remove all draws that wait."""
        numbers = (*self.fresh, *(number for group in self.retries for number in group.numbers))
        self.fresh = ()
        self.retries.clear()
        return numbers
