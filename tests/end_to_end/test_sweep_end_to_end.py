"""The whole path on real input: Ray, pruning, vLLM, grading, store, MLflow, as a person runs it: from the command line.

One small sweep is killed, resumed, repeated and looked at. Fixtures do, tests look.
"""

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from matplotlib.image import imread
from mlflow.tracking import MlflowClient

from orchestrator.drill.compare_stores import compare_stores
from orchestrator.drill.faults import PlannedKill, ProcessKind, SweepProcess, deliver_kills
from orchestrator.store.store import Store, load_draws
from tests.support import ROOT

GRID = """
name: small
store: {store}
models: [examples/tiny/model]
variants:
  - {{method: dense}}
  - {{method: wanda, sparsity: 0.5}}
token_limits: [16, 64]
benchmarks: [examples/tiny/chain-mixed.jsonl]
calibration: {{data: examples/tiny/calibration.jsonl, samples: 16, tokens: 128}}
sampling: {{temperature: 0.0}}
budget: {{mode: native-strict, answer_tokens: 16}}
runtime: {{in_flight: 8, commit_seconds: 0.2, slots: 2}}
"""
DRAWS = 200


def start(*arguments: str) -> "subprocess.Popen[str]":
    """One of our commands, as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one of our commands."""
    process = start(*arguments)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def committed(store: Path) -> pa.Table:
    """Every draw of a store in canonical order."""
    table = load_draws(str(store))
    return table.sort_by([("context_id", "ascending"), ("prompt_id", "ascending"), ("start", "ascending")])


@dataclass(frozen=True)
class Ran:
    """A sweep command that has ended, and what the store held then."""

    folder: Path
    status: int
    out: str
    err: str
    draws: pa.Table


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A sweep whose pruner, grader and engine were killed at work, each once, and at last its driver."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID.format(store=folder / "store"))
    with pytest.MonkeyPatch.context() as here:
        here.chdir(ROOT)
        driven = SweepProcess([sys.executable, "-m", "orchestrator.sweep", str(folder / "grid.yaml")], folder / "log")
    pending = [
        PlannedKill(ProcessKind.PRUNER, 0),
        PlannedKill(ProcessKind.GRADER, 0),
        PlannedKill(ProcessKind.ENGINE, 10),
        PlannedKill(ProcessKind.DRIVER, 100),
    ]
    delivered = [one.planned.kind for one in deliver_kills(driven, Store.open(str(folder / "store")), pending)]
    heard = (folder / "log").read_text()
    assert sorted(delivered) == sorted(
        [ProcessKind.PRUNER, ProcessKind.GRADER, ProcessKind.ENGINE, ProcessKind.DRIVER]
    ), heard
    return Ran(folder, driven.process.returncode, "", heard, committed(folder / "store"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the same sweep when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "grid.yaml").write_text(GRID.format(store=folder / "store"))
    status, _, err = run("orchestrator.sweep", str(folder / "grid.yaml"))
    assert status == 0, err
    return Store.open(str(folder / "store"))


@pytest.fixture(scope="module")
def resumed(killed: Ran) -> Ran:
    """The same command again."""
    return Ran(
        killed.folder, *run("orchestrator.sweep", str(killed.folder / "grid.yaml")), committed(killed.folder / "store")
    )


@pytest.fixture(scope="module")
def repeated(resumed: Ran) -> tuple[Ran, float]:
    """And once more, with the seconds it took."""
    began = time.monotonic()
    again = run("orchestrator.sweep", str(resumed.folder / "grid.yaml"))
    return Ran(resumed.folder, *again, committed(resumed.folder / "store")), time.monotonic() - began


def test_killed_sweep_has_committed_draws(killed: Ran) -> None:
    assert killed.status == -signal.SIGKILL
    assert 0 < killed.draws.num_rows < DRAWS, killed.err


def test_resumed_sweep_is_complete_and_made_no_draw_twice(killed: Ran, resumed: Ran) -> None:
    assert resumed.status == 0, resumed.err
    names = set(zip(resumed.draws["context_id"].to_pylist(), resumed.draws["prompt_id"].to_pylist(), strict=True))
    assert len(names) == DRAWS
    before, after = killed.draws.to_pylist(), resumed.draws.to_pylist()
    assert all(row in after for row in before), "committed draws stay as they are"
    # The killed driver's engine may have committed a little more before it died; nothing was made twice.
    assert resumed.draws.num_rows == DRAWS


def test_resumed_sweep_equals_the_undisturbed_one(resumed: Ran, undisturbed: Store, tmp_path: Path) -> None:
    found = compare_stores(undisturbed, Store.open(str(resumed.folder / "store")), tmp_path)
    assert (found.draws, found.patches) == (DRAWS, 2)
    assert found.identical, found.lines()
    assert not found.resampled


def test_table_shows_the_reasoner_at_its_limits(resumed: Ran) -> None:
    cells = {line.split("│")[2].strip(): line for line in resumed.out.splitlines() if line.count("│") > 3}
    assert set(cells) >= {"dense", "wanda + uniform at 0.5"}
    dense = [float(part.split("[")[0]) for part in cells["dense"].split("│")[3:5]]
    assert dense[0] < 0.5 < dense[1]


def test_repeated_sweep_owes_nothing_and_starts_no_engine(resumed: Ran, repeated: tuple[Ran, float]) -> None:
    again, seconds = repeated
    assert again.status == 0
    assert "nothing is owed; all 200 draws of 4 cells are in" in again.err
    assert "engine" not in again.err
    assert again.out.splitlines() == resumed.out.splitlines()
    assert again.draws.equals(resumed.draws)
    assert seconds < 60  # 20 s on an idle machine; this only says that nothing was started


def test_mlflow_has_a_run_per_sweep_variant_and_cell_and_sync_adds_none(
    repeated: tuple[Ran, float],
) -> None:
    ran, _ = repeated
    client = MlflowClient(f"sqlite:///{ran.folder / 'store' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("prunesweep")
    assert experiment is not None

    def names() -> dict[str, list[str]]:
        runs = client.search_runs([experiment.experiment_id])
        labels = {run.info.run_id: run.info.run_name for run in runs}
        tree: dict[str, list[str]] = {}
        for run in runs:
            parent = run.data.tags.get("mlflow.parentRunId")
            tree.setdefault(labels[parent] if parent else "", []).append(labels[run.info.run_id])
        return {parent: sorted(children) for parent, children in tree.items()}

    tree = names()
    model = "examples/tiny/model"
    assert tree[""] == ["small"]
    assert tree["small"] == [f"{model}: dense", f"{model}: wanda + uniform at 0.5"]
    assert tree[f"{model}: dense"] == ["dense @ 16", "dense @ 64"]
    (dense,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{model}: dense'")
    assert dense.info.status == "FINISHED"
    curve = client.get_metric_history(dense.info.run_id, "accuracy/chain-mixed")
    assert [point.step for point in curve] == [16, 64]

    status, _, err = run("orchestrator", "sync", str(ran.folder / "grid.yaml"))
    assert status == 0, err
    assert names() == tree
    assert len(client.get_metric_history(dense.info.run_id, "accuracy/chain-mixed")) == 2, "no point was added"


def test_report_draws_curves_and_lists_every_cell(repeated: tuple[Ran, float], tmp_path: Path) -> None:
    ran, _ = repeated
    status, _, err = run("orchestrator", "report", str(ran.folder / "grid.yaml"), "--output", str(tmp_path))
    assert status == 0, err
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[0] > 300
    assert picture.std() > 0.05, "something is drawn"
    with (tmp_path / "cells.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["missing"] for row in rows} == {"0"}
    (worst,) = [row for row in rows if row["method"] == "wanda" and row["token_limit"] == "64"]
    assert float(worst["minus_dense"]) < 0
    assert float(worst["p_holm"]) < 0.05
    with (tmp_path / "against_dense.csv").open(encoding="utf-8") as file:
        curve = list(csv.DictReader(file))
    assert [row["token_limit"] for row in curve] == ["16", "64"]
    assert float(curve[1]["minus_dense"]) == pytest.approx(float(worst["minus_dense"]))
    assert float(curve[1]["band_high"]) < 0


def test_status_reads_the_store_alone(repeated: tuple[Ran, float]) -> None:
    ran, _ = repeated
    status, out, _ = run("orchestrator", "status", str(ran.folder / "grid.yaml"))
    assert status == 0
    assert out.splitlines() == ran.out.splitlines()


def test_plan_says_that_everything_is_held(repeated: tuple[Ran, float]) -> None:
    ran, _ = repeated
    status, out, _ = run("orchestrator", "plan", str(ran.folder / "grid.yaml"), "--json")
    assert status == 0
    plan = json.loads(out)
    assert plan["draws"] == {"held": DRAWS, "owed": 0}
    assert plan["patches"]["owed"] == []


def test_sweep_with_a_further_limit_owes_only_answers(repeated: tuple[Ran, float], tmp_path: Path) -> None:
    ran, _ = repeated
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.format(store=ran.folder / "store").replace("[16, 64]", "[16, 32, 64]"))
    status, out, _ = run("orchestrator", "plan", str(grid), "--json")
    assert status == 0
    plan = json.loads(out)
    assert 0 < plan["draws"]["owed"] <= DRAWS
    assert plan["thinking_tokens_at_most"] == 0, "the traces are stored to 64 tokens; only cuts are asked for"
