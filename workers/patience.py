"""Patience with a store that refuses: a full disk is made room on, a mount comes back, and nothing was lost."""

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from workers.inbox import Inbox
from workers.messages import Failure, Report, Troubled
from workers.store_errors import StoreUnavailable

T = TypeVar("T")

PAUSE_SECONDS = 5.0


def insist(task_id: str, deed: Callable[[], T], inbox: Inbox, seconds: float) -> Generator[Report, None, T]:
    """Do `deed`; while the store refuses it, say so and do it again, for so many seconds.

    Returns what `deed` returns. Raises its last StoreUnavailable when time is up or the inbox is closed.
    """
    began = time.monotonic()
    while True:
        try:
            return deed()
        except StoreUnavailable as error:
            yield Troubled(task_id, Failure("store", str(error)))
            left = began + seconds - time.monotonic()
            if left <= 0 or inbox.closes_within(min(PAUSE_SECONDS, left)):
                raise
