"""MLflow: its database is created whole or not at all, and its runs have the metrics of their cells."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.__main__ import main
from orchestrator.results.cells import read_results
from orchestrator.results.tracking import sync
from tests.support import ROOT
from tests.support.builders import TinySweep

GRID = str(ROOT / "examples" / "tiny" / "grid.yaml")

SYNC_THAT_DIES = """
import os, signal, sys
from itertools import count
from sqlalchemy import Engine, event
from orchestrator.__main__ import main
from orchestrator.results.cells import read_results
from orchestrator.results.tracking import sync

seen = count(1)

@event.listens_for(Engine, "after_cursor_execute")
def die_amid_the_migrations(_connection, _cursor, statement, *_):
    if statement.lstrip().startswith("CREATE TABLE") and next(seen) == 20:
        os.kill(os.getpid(), signal.SIGKILL)

main(["sync", *sys.argv[1:]])
"""


def test_process_killed_amid_the_making_of_the_database_leaves_none_and_the_next_makes_it(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    died = subprocess.run(
        [sys.executable, "-c", SYNC_THAT_DIES, GRID, "--store", store], cwd=ROOT, capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not Path(store, "mlflow.db").exists()
    assert main(["sync", GRID, "--store", store]) == 0
    assert [file.name for file in Path(store).glob("mlflow.db*")] == ["mlflow.db"], "what the dead one left is swept up"
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    assert [e.name for e in client.search_experiments(filter_string="name = 'prunesweep'")] == ["prunesweep"]


def test_disk_without_hard_links_takes_the_database_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source)

    monkeypatch.setattr(os, "link", refuse)
    assert main(["sync", GRID, "--store", str(tmp_path)]) == 0
    assert [file.name for file in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]


def test_runs_have_both_intervals_and_pass_at_k(sweep: TinySweep) -> None:
    assert sweep.run() == "done"
    resolved = sweep.resolve_grid()
    client = MlflowClient(sync(sweep.store, resolved))
    (experiment,) = client.search_experiments(filter_string="name = 'prunesweep'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    variant = runs[resolved.variants[0].full_label].info.run_id
    for cell in read_results(sweep.store, resolved).cells:
        metrics = cell.metrics
        assert metrics.analytic is not None
        for key, value in (("low", metrics.analytic.low), ("high", metrics.analytic.high)):
            points = client.get_metric_history(variant, f"accuracy_analytic_{key}/first")
            assert [point.value for point in points if point.step == cell.limit] == [value]
        found = runs[f"dense @ {cell.limit}"].data.metrics
        assert {k: found[f"pass_at_{k}/first"] for k in (1, 2)} == dict(metrics.pass_at)
