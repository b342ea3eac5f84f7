"""Repetition loops: what counts as one, to the token."""

import pytest

from eval.loops import ends_in_loop


@pytest.mark.parametrize(
    ("ids", "looping"),
    [
        ([], False),
        ([1] * 63, False),
        ([1] * 64, True),
        (list(range(200)), False),
        ([*range(50), *([5, 6, 7] * 22)], True),
        ([*([5, 6, 7] * 22), 9], False),
        ([*range(1000), *(list(range(300)) * 4)], True),
        (list(range(300)) * 3, False),
        ([*(list(range(300)) * 4), *range(150)], True),
    ],
)
def test_repetition_loops(ids, looping):
    assert ends_in_loop(ids) is looping
