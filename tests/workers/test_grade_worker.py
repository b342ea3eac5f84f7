"""The worker that grades: what it says while answers take long, and what it reads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest

from eval.grading import GradeItem, grade, grader_id
from orchestrator.store.store import Store
from orchestrator.store.tables import GRADES, TABLES
from tests.support.builders import make_row
from workers.grade_worker import GradeSettings, GradeWorker
from workers.messages import Gold, Graded, GradeTask, Heartbeat, Report, TaskEnded
from workers.rows.draw_rows import METADATA
from workers.rows.grade_rows import ungraded
from workers.worker import Inbox


@dataclass
class _Listening(Store):
    """The real store; it remembers which columns were asked for."""

    asked: set[str] = field(default_factory=set)

    def read(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> pa.Table:
        self.asked |= set(columns or TABLES[table].names)
        return super().read(table, context_id, columns)


HANGS = r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n}}"
GOLDS = tuple(Gold(f"p{number}", f"gold-{number}", "7", "math") for number in range(2))
TASK = GradeTask("task", "c", "answers", GOLDS)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[GradeWorker]:
    """Over a store of a fine answer after one that hangs; it has half a second for each."""
    store = Store.open(str(tmp_path))
    store.commit_draws([make_row(prompt=f"p{n}", text=text) for n, text in enumerate((HANGS, r"\boxed{7}"))])
    one = GradeWorker("grader", store, GradeSettings("standard", processes=1, seconds=0.5, chunk_seconds=0.1))
    yield one
    one.close()


def test_answer_that_hangs_is_heard_of_and_committed_before_the_next(worker: GradeWorker, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    held: list[tuple[Report, int]] = []
    for report in worker.run(TASK, Inbox()):
        held.append((report, store.read("grades", "c").num_rows))
    assert held == [
        (Heartbeat("task"), 0), (Graded("task", "c", 1), 1), (Graded("task", "c", 1), 2), (TaskEnded("task"), 2),
    ]  # fmt: skip
    rows = {row["prompt_id"]: row for row in store.read("grades", "c").to_pylist()}
    assert (rows["p0"]["verdict"], rows["p1"]["verdict"]) == ("INCORRECT", "CORRECT")
    assert rows["p0"]["cause"] == "timeout: 0.5 s of processor time were used up"
    assert rows["p0"]["rule"] == rows["p1"]["rule"] != ""


def test_only_forced_answers_are_graded_with_the_cue(tmp_path: Path) -> None:
    store, cue, text = Store.open(str(tmp_path)), "The answer is \\boxed{", "7}. So 7 it is, is it not?"
    first = make_row(cuts=(2, 4), text=text)
    answers = tuple(replace(answer, forced=answer.cut == 2) for answer in first.answers)
    store.commit_draws([replace(first, answers=answers)])
    worker = GradeWorker("grader", store, GradeSettings("exact", processes=1, seconds=10.0))
    assert list(worker.run(replace(TASK, cue=cue), Inbox()))[-1] == TaskEnded("task")
    worker.close()
    found = {row["cut"]: (row["verdict"], row["extracted"]) for row in store.read("grades", "c").to_pylist()}
    without = grade(GradeItem(text, "7"), "exact")
    assert found == {2: ("CORRECT", "7"), 4: (without.verdict, without.extracted or "")}
    assert found[2] != found[4]


def test_what_is_ungraded_is_told_without_a_text_and_graded_without_a_token(tmp_path: Path) -> None:
    store = _Listening(Store.open(str(tmp_path)).files)
    store.commit_draws([make_row(cuts=(2, 4))])
    assert ungraded(store, TASK, grader_id("exact")) == [(("p0", 0, cut), GOLDS[0]) for cut in (2, 4)]
    assert store.asked <= {*METADATA, *GRADES.names}

    worker = GradeWorker("grader", store, GradeSettings("exact", processes=1, seconds=10.0))
    assert list(worker.run(TASK, Inbox())) == [Graded("task", "c", 2), TaskEnded("task")]
    worker.close()
    assert store.asked - {*METADATA, *GRADES.names} == {"answers.text", "answers.forced"}
    assert set(store.read("grades", "c")["verdict"].to_pylist()) == {"CORRECT"}
