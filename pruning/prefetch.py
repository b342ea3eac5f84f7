"""Compute values in threads shortly before they are used, in order; and how many threads a machine has for that."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def spare_threads(most: int) -> int:
    """Threads to work beside the one that computes: `most`, but at most half of this process's cores, and one."""
    return max(1, min(most, len(os.sched_getaffinity(0)) // 2))


def prefetch(calls: Iterable[Callable[[], T]], ahead: int) -> Generator[T, None, None]:
    """The results of `calls` in order, up to `ahead` of them computed before they are asked for; 0 uses no threads.

    An error is raised in the place of its result. Closing the iterator early waits only for calls that have begun.
    """
    if ahead == 0:
        yield from (call() for call in calls)
        return
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="prefetch")
    pending: deque[Future[T]] = deque()
    try:
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
