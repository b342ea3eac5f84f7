"""The worker that grades: what it says while answers take long, and what it reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import Store
from tests.orchestrator.builders import make_row
from workers.grade_worker import GradeWorker
from workers.inbox import Inbox
from workers.messages import Ended, Gold, Graded, GradeTask, Heartbeat, Report

HANGS = (r"\boxed{10^{10^{10^{10}}}}", r"\boxed{9^{9^{9^{9^{9}}}}!}")
GOLDS = tuple(Gold(f"p{number}", f"gold-{number}", "7", "math") for number in range(3))
TASK = GradeTask("task", "c", "answers", GOLDS)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[GradeWorker]:
    """Over a store of one fine answer after two that hang; it has half a second for each."""
    store = Store.open(str(tmp_path))
    store.commit_draws([make_row(prompt=f"p{n}", text=text) for n, text in enumerate((*HANGS, r"\boxed{7}"))])
    one = GradeWorker("grader", store, "standard", processes=1, seconds=0.5, chunk_seconds=0.1)
    yield one
    one.close()


def test_answers_that_hang_are_heard_of_and_committed_one_by_one(worker: GradeWorker, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    held: list[tuple[Report, int]] = []
    for report in worker.run(TASK, Inbox()):
        held.append((report, store.read("grades", "c").num_rows))
    first, second = [Heartbeat("task"), Graded("task", "c", 1)], [Heartbeat("task"), Graded("task", "c", 1)]
    assert [report for report, _ in held] == [*first, *second, Graded("task", "c", 1), Ended("task")]
    assert [rows for _, rows in held] == [0, 1, 1, 2, 3, 3]
    verdicts = {row["prompt_id"]: row["cause"].split(":")[0] for row in store.read("grades", "c").to_pylist()}
    assert verdicts == {"p0": "timeout", "p1": "timeout", "p2": ""}
