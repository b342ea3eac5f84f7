"""Loops in the results: one number per trace serves every limit, and old traces are looked at once."""

import errno
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.grading import grader_id
from orchestrator.__main__ import main
from orchestrator.results.cells import read_results
from orchestrator.store.store import Store
from orchestrator.store.tables import DRAWS_2, TABLES
from tests.orchestrator.store.test_old_store import ARCHIVE
from tests.support.builders import TinySweep, make_grade, make_row
from tests.support.faulty_store import REFUSING, FaultyStore

TOKENS = {"trace_ids", "prompt_ids", "answers", "answers.token_ids", "answers.text", "trace_text"}


@dataclass
class _Counting(Store):
    """The real store; it remembers which columns were asked for."""

    asked: set[str] = field(default_factory=set)

    def read(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> pa.Table:
        self.asked |= set(columns or TABLES[table].names)
        return super().read(table, context_id, columns)


def commit_graded(sweep: TinySweep, *traces: dict[str, Any]) -> None:
    """A draw of the dense variant for each trace, on its first problems, graded at every cut."""
    variant = sweep.resolve_grid().variants[0]
    context = variant.decodings[0].context
    names = {"context_id": context.context_id, "answer_context_id": context.answer_context_id}
    for question, trace in zip(variant.questions, traces, strict=False):
        row = make_row(prompt=question.gold.prompt_id, **trace)
        sweep.store.commit_draws([replace(row, **names)])
        sweep.store.commit_grades(
            [
                replace(make_grade(row.prompt_id, cut=answer.cut), gold_id=question.gold.gold_id, **names,
                        grader=grader_id("standard"))
                for answer in row.answers
            ]
        )  # fmt: skip


def forget(sweep: TinySweep) -> None:
    """Write the draws again as version 2 did."""
    for file in Path(sweep.store.root, "draws").rglob("*.parquet"):
        rows = pq.read_table(file).to_pylist()
        pq.write_table(pa.Table.from_pylist(rows, schema=DRAWS_2), file)


@pytest.mark.parametrize("mode", ["native-strict", "s1-legacy", "none"])
def test_draw_has_looped_at_the_limits_behind_the_position_whatever_the_mode(sweep: TinySweep, mode: str) -> None:
    sweep.limits, sweep.seeds, sweep.benchmarks = (32, 64, 128), (0,), {"first": range(4)}
    sweep.budget = {"mode": mode, "answer_tokens": None if mode == "none" else 16}
    cuts = {"cuts": (32, 64, 128), "limit": 128}
    commit_graded(
        sweep,
        {"trace": range(128), "loop_at": 64, **cuts},
        {"trace": range(128), "loop_at": 65, **cuts},
        {"trace": range(128), "loop_at": 0, **cuts},
        {"trace": range(20), "ended": True, "cuts": (20,), "limit": 128},
    )
    store = _Counting(sweep.store.files)
    rates = [cell.metrics.loop_rate for cell in read_results(store, sweep.resolve_grid()).cells]
    assert rates == [0.0, 0.25, 0.5]
    assert not store.asked & TOKENS


@pytest.fixture
def old(tmp_path: Path) -> TinySweep:
    """A store that version 1 wrote."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    sweep = TinySweep(tmp_path, variants=[{"method": "dense"}], limits=(8, 16), benchmarks={"first": range(4)})
    sweep.runtime = {"grader": "exact"}
    return sweep


def test_old_traces_are_looked_at_once(old: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    grid = str(old.write_grid())
    assert main(["regrade", grid]) == 0
    capsys.readouterr()
    assert main(["status", grid]) == 0
    told = capsys.readouterr().out
    (context,) = {row["context_id"] for row in old.rows("loops")}
    assert len(old.rows("loops")) == old.store.read("draws", context, ["start"]).num_rows == 8
    store = _Counting(old.store.files)
    read_results(store, old.resolve_grid())
    assert "trace_ids" not in store.asked
    assert main(["status", grid]) == 0
    assert capsys.readouterr().out == told
    assert len(old.rows("loops")) == 8


def test_old_traces_of_a_store_that_cannot_be_written_are_looked_at_every_time(old: TinySweep) -> None:
    store = FaultyStore.over(old.store, str(old.folder / "ledger"), 0, ())
    Path(store.ledger, REFUSING).write_text(str(errno.EROFS))
    refused = read_results(store, old.resolve_grid())
    assert not old.store.contexts("loops")
    Path(store.ledger, REFUSING).unlink()
    assert read_results(store, old.resolve_grid()).cells == refused.cells
    assert old.store.contexts("loops")


def test_old_trace_that_loops_is_found_and_one_that_was_continued_is_looked_at_as_a_whole(sweep: TinySweep) -> None:
    sweep.limits, sweep.seeds, sweep.benchmarks = (64, 128), (0,), {"first": range(1)}
    commit_graded(sweep, {"trace": [1] * 60, "cuts": (60,), "limit": 60})
    commit_graded(sweep, {"trace": [1] * 68, "cuts": (64, 128), "limit": 128, "start": 60, "created_at": 2.0})
    forget(sweep)
    rates = [cell.metrics.loop_rate for cell in read_results(sweep.store, sweep.resolve_grid()).cells]
    assert rates == [0.0, 1.0], "a digit takes 70 tokens to be a loop"
    (kept,) = sweep.rows("loops")
    assert (kept["trace_tokens"], kept["loop_at"]) == (128, 70)
