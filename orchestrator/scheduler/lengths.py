"""Expected trace lengths: what the same question took under other variants, else what its group takes. Pure.

Lengths decide only the order of work and estimates of what is left, never an answer. A trace cut by a limit counts as
long as the limit: what matters is that long ones start first.
"""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class LengthEstimator:
    """Expected trace lengths of one model's questions, in tokens."""

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
