"""How long traces will be: what the same question took under other variants, else what its benchmark takes. Pure.

Lengths decide only the order of work and the size of what is left, never an answer. A trace cut by a limit counts as
long as the limit: what matters is that the long ones start first.
"""

from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

TYPICAL_TOKENS: Mapping[str, float] = {"AIME24": 10_000, "AMC23": 6_000, "GPQA-Diamond": 6_000, "MATH-500": 3_500}
"""Thinking tokens of 7–8 B reasoning models on the built-in benchmarks, roughly: only their order is relied on."""

OTHERWISE = 4_000.0
"""For a benchmark of the user's own, until its first draws are in."""


class LengthEstimator:
    """Expected trace lengths of one model's questions, in tokens."""

    def __init__(self, benchmark_of: Sequence[str]) -> None:
        """`benchmark_of`: the benchmark of each question, by the question's number."""
        names = list(dict.fromkeys(benchmark_of))
        self._benchmark = array("H", (names.index(name) for name in benchmark_of))
        self._defaults = [TYPICAL_TOKENS.get(name, OTHERWISE) for name in names]
        self._sums = array("d", bytes(8 * len(benchmark_of)))
        self._counts = array("I", bytes(4 * len(benchmark_of)))
        self._benchmark_sums = [0.0] * len(names)
        self._benchmark_counts = [0] * len(names)
        self.questions = len(benchmark_of)
        self.observed = 0
        """How many lengths have been taken in."""

    def observe(self, question: int, tokens: int) -> None:
        """Take in the length of a trace that was made."""
        self.observed += 1
        self._sums[question] += tokens
        self._counts[question] += 1
        benchmark = self._benchmark[question]
        self._benchmark_sums[benchmark] += tokens
        self._benchmark_counts[benchmark] += 1

    def expect(self) -> NDArray[np.float64]:
        """The expected length of a trace for each question that no limit cuts."""
        counts = np.asarray(self._counts)
        # The first traces that end are the short ones: what is not seen yet is not shorter for it.
        seen = np.asarray(self._benchmark_sums) / np.maximum(1, self._benchmark_counts)
        otherwise = np.maximum(self._defaults, seen)[np.asarray(self._benchmark)]
        return np.where(counts, np.asarray(self._sums) / np.maximum(1, counts), otherwise)
