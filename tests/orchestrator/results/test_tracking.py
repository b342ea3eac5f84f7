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
from orchestrator.results.numbers import GRID_WIDE, against_numbers, cell_numbers
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


def test_runs_have_all_numbers_of_their_cells_and_of_the_comparison(sweep: TinySweep) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert sweep.run() == "done"
    resolved = sweep.resolve_grid()
    client = MlflowClient(sync(sweep.store, resolved))
    (experiment,) = client.search_experiments(filter_string="name = 'prunesweep'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    results = read_results(sweep.store, resolved)
    for cell in results.cells:
        metrics = cell.metrics
        assert metrics.interval is not None
        variant = runs[cell.variant.full_label].info.run_id
        for key, value in (("low", metrics.interval.low), ("high", metrics.interval.high)):
            points = client.get_metric_history(variant, f"accuracy_{key}/first")
            assert [point.value for point in points if point.step == cell.limit] == [value]
        run = runs[f"{cell.variant.label} @ {cell.limit}"].data
        assert run.tags["interval_note/first"] == "few right, few wrong"
        assert {k: run.metrics[f"pass_at_{k}/first"] for k in (1, 2)} == dict(metrics.pass_at)
        numbers = cell_numbers(metrics)
        if not cell.variant.dense:
            against = against_numbers(results.against_dense[cell.variant.patch_id, "first", cell.limit])
            numbers |= {name: value for name, value in against.items() if name not in GRID_WIDE}
        assert run.metrics == {f"{name}/first": v for name, v in numbers.items() if isinstance(v, (int, float))}


def test_part_of_a_benchmark_and_a_file_of_any_name_have_metrics(sweep: TinySweep) -> None:
    sweep.benchmarks = {"hard (v2), é": range(3), "first": range(4)}
    sweep.parts = {"first": {"sample": 2, "seed": 7}}
    assert sweep.run() == "done"
    client = MlflowClient(sync(sweep.store, sweep.resolve_grid()))
    (experiment,) = client.search_experiments(filter_string="name = 'prunesweep'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    metrics = runs["dense @ 8"].data.metrics
    assert {"accuracy/hard _v2__ é", "accuracy/first sample 2 seed 7"} <= metrics.keys()
