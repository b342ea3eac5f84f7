"""Retries while a store is unavailable: what is reported, and when they end."""

import pytest

from workers.messages import StoreBlocked
from workers.store import StoreUnavailable, Trouble
from workers.store_retry import FIRST_PAUSE, LONGEST_PAUSE, next_pause, retry_while_unavailable
from workers.worker import Inbox


def refuse() -> None:
    raise StoreUnavailable("no room", Trouble.FULL)


def test_result_is_returned_without_a_report_if_the_store_is_well() -> None:
    with pytest.raises(StopIteration) as ended:
        next(retry_while_unavailable("task", lambda: "rows", Inbox(), 60.0))
    assert ended.value.value == "rows"


@pytest.mark.parametrize(("closed", "seconds"), [(True, 60.0), (False, 0.0)])
def test_refusal_is_reported_and_raised_when_the_inbox_is_closed_or_time_is_up(closed: bool, seconds: float) -> None:
    inbox = Inbox()
    if closed:
        inbox.close()
    attempt = retry_while_unavailable("task", refuse, inbox, seconds)
    report = next(attempt)
    assert isinstance(report, StoreBlocked)
    assert (report.task_id, report.failure.kind, report.failure.cause) == ("task", "store", "no room")
    with pytest.raises(StoreUnavailable, match="no room"):
        next(attempt)


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [0.0]
    while pauses[-1] < LONGEST_PAUSE:
        pauses.append(next_pause(pauses[-1]))
    assert pauses[1:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert next_pause(LONGEST_PAUSE) == LONGEST_PAUSE
