"""Patience with a store that refuses: a full disk is made room on, a mount comes back, and nothing was lost."""

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from workers.failure import Failure, FailureKind
from workers.inbox import Inbox
from workers.messages import Report, StoreBlocked
from workers.store import StoreUnavailable

T = TypeVar("T")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0


def retry_while_unavailable(
    task_id: str, deed: Callable[[], T], inbox: Inbox, seconds: float
) -> Generator[Report, None, T]:
    """Do `deed`; while the store refuses it, say so and do it again, ever less often, for so many seconds.

    Returns what `deed` returns. Raises its last StoreUnavailable when time is up or the inbox is closed.
    """
    began, pause = time.monotonic(), 0.0
    while True:
        try:
            return deed()
        except StoreUnavailable as error:
            yield StoreBlocked(task_id, Failure(FailureKind.STORE, str(error)))
            pause, left = next_pause(pause), began + seconds - time.monotonic()
            if left <= 0 or inbox.closes_within(min(pause, left)):
                raise


def next_pause(pause: float) -> float:
    """The pause after `pause`, in seconds; the first comes after 0."""
    return min(2 * pause, LONGEST_PAUSE) or FIRST_PAUSE
