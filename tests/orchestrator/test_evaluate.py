"""What `python -m eval --json` prints of a cell: after a scripted sweep, and when a user runs the command."""

import json
import subprocess
import sys
from pathlib import Path

from orchestrator.evaluate import summary
from orchestrator.results.cells import read_results
from tests.support import ROOT
from tests.support.builders import TinySweep


def test_summary_has_the_interval_and_pass_at_k(sweep: TinySweep) -> None:
    assert sweep.run() == "done"
    results = read_results(sweep.store, sweep.resolve_grid())
    told = json.loads(json.dumps(summary(results)))
    assert told["complete"]
    for cell, one in zip(results.cells, told["cells"], strict=True):
        interval = cell.metrics.interval
        assert interval is not None
        assert one["interval"] == [interval.low, interval.high]
        assert one["interval_note"] == interval.note
        assert one["pass_at"]["1"] == one["accuracy"]
        assert one["pass_at"]["2"] >= one["accuracy"]
        assert one["pass_at_interval"]["1"] == one["interval"]


def test_summary_of_an_empty_store_has_no_intervals(sweep: TinySweep) -> None:
    cells = summary(read_results(sweep.store, sweep.resolve_grid()))["cells"]
    assert [(one["interval"], one["interval_note"], one["pass_at"]) for one in cells] == [(None, None, {})] * 2
    assert [(one["if_missing_wrong"], one["if_missing_right"]) for one in cells] == [(0, 1)] * 2


def test_command_evaluates_a_part_with_a_format_and_a_template_of_ones_own(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "eval", "examples/tiny/model", "--output", str(tmp_path / "store"), "--json"),
        *("--limits", "8,64", "--answer-tokens", "8", "--template", "{problem}"),
        *("--benchmark", "examples/tiny/chain-mixed.jsonl", "--first", "3"),
        *("--format", "{start: <think>, end: </think>, early_stop: </think>}"),
        *("--temperature", "0.5", "--top-k", "5", "--min-p", "0.01"),
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert told["complete"]
    cells = [(one["benchmark"], one["token_limit"], one["questions"], one["draws"]) for one in told["cells"]]
    assert cells == [("chain-mixed first 3", 8, 3, 3), ("chain-mixed first 3", 64, 3, 3)]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "nothing is owed; all 3 draws are in" in again.stderr
    assert json.loads(again.stdout) == told
