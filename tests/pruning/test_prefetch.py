"""Prefetching keeps the order, raises errors in their place, and starts no more than it was told to."""

from __future__ import annotations

from functools import partial
from threading import Event

import pytest

from pruning.prefetch import prefetch


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_results_come_in_order(ahead):
    assert list(prefetch((partial(pow, i, 2) for i in range(7)), ahead)) == [i * i for i in range(7)]


@pytest.mark.parametrize("ahead", [0, 2])
def test_error_is_raised_in_the_place_of_its_result(ahead):
    results = prefetch((partial(divmod, 6, i) for i in (3, 2, 0, 1)), ahead)
    assert next(results) == (2, 0)
    assert next(results) == (3, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_calls_are_begun_only_so_far_ahead():
    asked = []
    second = Event()

    def calls():
        for i in range(6):
            asked.append(i)
            yield partial(lambda i: second.set() if i == 1 else None, i)

    results = prefetch(calls(), 2)
    assert asked == []
    next(results)
    assert asked == [0, 1, 2]
    assert second.wait(60), "the second call runs before its result is asked for"
    results.close()
    assert asked == [0, 1, 2]
