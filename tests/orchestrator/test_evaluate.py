"""What `python -m eval --json` prints of a cell. The sweep behind it runs on a scripted engine."""

import json

from orchestrator.evaluate import summary
from orchestrator.results.cells import read_results
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
