"""Retries while a store is unavailable: room may be made on a full disk, a mount may come back."""

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from workers.failure import Failure, FailureKind
from workers.messages import Report, StoreBlocked
from workers.store import StoreUnavailable
from workers.worker import Inbox

T = TypeVar("T")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0


def retry_while_unavailable(
    task_id: str, request: Callable[[], T], inbox: Inbox, seconds: float
) -> Generator[Report, None, T]:
    """Call `request`; while the store is unavailable, report `StoreBlocked` and retry with growing pauses.

    Returns what `request` returns. Raises its last StoreUnavailable after `seconds`, or when the inbox is closed.
    """
    began, pause = time.monotonic(), 0.0
    while True:
        try:
            return request()
        except StoreUnavailable as error:
            yield StoreBlocked(task_id, Failure(FailureKind.STORE, str(error)))
            pause, left = next_pause(pause), began + seconds - time.monotonic()
            if left <= 0 or inbox.closes_within(min(pause, left)):
                raise


def next_pause(pause: float) -> float:
    """The pause after `pause`, in seconds; `next_pause(0)` is the first."""
    return min(2 * pause, LONGEST_PAUSE) or FIRST_PAUSE
