"""Values made by threads a little before they are asked for, in order: reading and decoding beside what uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def made_ahead(makers: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """What the makers make, in their order; up to `ahead` are under way or waiting. With 0, each when it is asked for.

    Raises what a maker raises, in its turn. A reader that stops early waits only for what is under way.
    """
    if ahead == 0:
        yield from (make() for make in makers)
        return
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="made-ahead")
    waiting: deque[Future[T]] = deque()
    try:
        for make in makers:
            waiting.append(pool.submit(make))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
