"""A store that refuses for good amid a sweep under Ray: the sweep ends with a message, the next run completes it."""

import re
from pathlib import Path

import pytest

from orchestrator.driver import Driver, make_core
from orchestrator.grid import read_grid
from orchestrator.holdings import read_holdings
from orchestrator.local_backend import LocalBackend
from orchestrator.plan import make_plan
from orchestrator.sameness import compare_stores
from orchestrator.survey import survey
from tests.drilled_demo import ROOT, Demo
from tests.struck_store import Deed, Moment, Strike, relieve

GRID = """
name: refused
store: unused
models: [examples/tiny/model]
variants: [{method: dense}]
token_limits: [8, 16]
benchmarks: [examples/tiny/chain-mixed.jsonl]
sampling: {temperature: 0.0}
budget: {mode: native-strict, answer_tokens: 16}
runtime: {engines: 1, slots: 2, in_flight: 4, commit_seconds: 0.001, store_seconds: 2, attempts: 1}
"""
FULL = Strike("draws", Moment.DURING, deed=Deed.FULL, at=40)

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The same sweep in threads of this process: only the store is compared."""
    demo = Demo(tmp_path_factory.mktemp("undisturbed"), GRID)
    surveyed = survey(read_grid(demo.folder / "grid.yaml"))
    plan, backend = make_plan(surveyed, read_holdings(demo.store, surveyed)), LocalBackend(cpus=2)
    core = make_core(plan, demo.store, surveyed.grid.runtime, backend.devices())
    scratch = demo.folder / "scratch"
    assert Driver(core, plan, backend, demo.store, scratch, [], demo.engines).run() == "done"
    backend.close()
    return demo


def test_disk_that_stays_full_ends_the_sweep_and_the_next_run_completes_it(
    undisturbed: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(ROOT)
    demo = Demo(tmp_path / "refused", GRID)
    driven = demo.start((FULL,))
    while driven.status is None:
        driven.hear(1.0)
    assert driven.status == 3, demo.log()
    said = " ".join(demo.log().split())
    assert re.search(r"engine-\d+ waits.*cannot be written \(full\).*make room there", said)
    assert "refused: not finished: the store cannot be used" in said
    held, made = demo.held(), demo.traces()
    assert 0 < len(held) < 100
    assert {made[trace] for trace in held} == {1}
    relieve(demo.ledger)
    assert demo.finish() == 0, demo.log()
    again = {trace for trace, count in (demo.traces() - made).items() if trace in held}
    assert not again
    found = compare_stores(undisturbed.store, demo.store, tmp_path)
    assert found.same, found.lines()
    assert not found.resampled
