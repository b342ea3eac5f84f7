"""Repetition loops: a trace that repeats itself until its limit, a known failure of pruned models."""

from collections.abc import Sequence

import numpy as np

LONGEST_PERIOD = 512
"""Tokens."""
FEWEST_REPEATS = 4
SHORTEST_LOOP = 64
"""Tokens, all repetitions together."""


def ends_in_loop(token_ids: Sequence[int]) -> bool:
    """Whether `token_ids` end in one block of at most `LONGEST_PERIOD` tokens, repeated back to back.

    The repetition must span `FEWEST_REPEATS` periods and `SHORTEST_LOOP` tokens, so that a table row, a list of similar
    items or a run of spaces does not count.
    """
    ids = np.asarray(token_ids[-(LONGEST_PERIOD * FEWEST_REPEATS) :])
    for period in range(1, min(LONGEST_PERIOD, len(ids) // FEWEST_REPEATS) + 1):
        span = max(period * FEWEST_REPEATS, SHORTEST_LOOP)
        if span <= len(ids) and np.array_equal(ids[-span + period :], ids[-span:-period]):
            return True
    return False
