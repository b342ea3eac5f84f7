"""The fault matrix: each kind of worker × kill -9, hang, error, full disk, read-only disk × before, during, after its
commit; an engine that stalls; and a node's loss.

All of it befalls one sweep, in which only the engine is scripted, on a real Ray cluster: every commit meets the next
strike that is due. To add a row, add a `Strike`. The driver's rows are in test_driver_kills.py, those of real engines
in test_sweep_end_to_end.py. MLflow's server is killed as soon as it has written a first run.
"""

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from orchestrator.__main__ import main
from orchestrator.cluster.ray_backend import run_on_host
from orchestrator.drill.compare_stores import compare_stores
from orchestrator.drill.faults import children
from tests.support.drilled_demo import Demo, cluster_of
from tests.support.struck_store import Deed, Moment, Strike, Victim, relieve, struck

NODE_LOST = Strike("draws", Moment.DURING, Victim.NODE)
MATRIX = (
    *(Strike(t, moment, deed=deed) for t in ("patches", "draws", "grades") for deed in Deed for moment in Moment),
    *(Strike("grades", Moment.BEFORE, Victim.CHILD, deed) for deed in (Deed.KILL, Deed.HANG)),
    NODE_LOST,
)
STALL = ("--stall", "60")
GRID = """
name: matrix
store: unused
models: [examples/tiny/model]
variants:
  - {method: dense}
  - {method: magnitude, sparsity: [0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]}
token_limits: [8, 16]
benchmarks: [examples/tiny/chain-mixed.jsonl]
sampling: {temperature: 0.0}
budget: {mode: native-strict, answer_tokens: 16}
runtime:
  engines: 1
  slots: 2
  in_flight: 8
  commit_seconds: 0.001
  attempts: 50
  silence_seconds: 5
  stall_seconds: 4
  prune_seconds: 3
  grader_seconds: 3
"""
FAST_RAY = {
    "RAY_kill_worker_timeout_milliseconds": "1000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}

pytestmark = pytest.mark.timeout(900)  # one sweep with all its faults is one fixture


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_of(2, **FAST_RAY) as cluster:
        yield cluster


@dataclass(frozen=True)
class TaskEnded:
    """A sweep at its end, and the exit status of each of its runs."""

    demo: Demo
    statuses: tuple[int, ...]


@dataclass(frozen=True)
class Tracking:
    """A real `mlflow server` over the database of the sweep that is to be struck."""

    demo: Demo
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def has_written(self) -> bool:
        return "POST /api/2.0/mlflow/runs/create" in self.log.read_text()

    def wait(self) -> None:
        while "Uvicorn running" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            select.select([], [], [], 0.1)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """Begun before everything else, since it takes a while."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    demo = Demo(tmp_path_factory.mktemp("stormed"), GRID + f"  tracking_uri: http://127.0.0.1:{port}\n")
    Path(demo.store.root).mkdir()
    log = demo.folder / "mlflow.log"
    command = f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 --backend-store-uri {demo.database}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command.split()], stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    tracking = Tracking(demo, process, log)
    yield tracking
    tracking.kill()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    demo = Demo(tmp_path_factory.mktemp("undisturbed"), GRID)
    demo.finish_here()
    return demo


@pytest.fixture(scope="module")
def stormed(cluster: Cluster, tracking: Tracking, undisturbed: Demo) -> TaskEnded:
    """The sweep under every strike of the matrix; a run that ends incomplete is repeated, as its message says."""
    demo, statuses, joined = tracking.demo, [], False
    tracking.wait()
    while not statuses or (statuses[-1] != 0 and len(statuses) < 4):
        driven = demo.start(MATRIX, *STALL)
        while driven.status is None:
            line = driven.hear(0.1) or ""
            if "(full)" in line or "(refused)" in line:
                relieve(demo.ledger)
            if tracking.has_written:
                tracking.kill()
            if not joined and NODE_LOST.name in struck(demo.ledger):
                cluster.add_node(num_cpus=2)
                joined = True
        statuses.append(driven.status)
    return TaskEnded(demo, tuple(statuses))


@pytest.mark.parametrize("strike", MATRIX, ids=lambda strike: strike.name)
def test_strike_happened(stormed: TaskEnded, strike: Strike) -> None:
    assert strike.name in struck(stormed.demo.ledger), stormed.demo.log()[-3000:]


def test_sweep_survives_every_row_and_equals_the_undisturbed_one(
    stormed: TaskEnded, undisturbed: Demo, tmp_path: Path
) -> None:
    assert stormed.statuses[-1] == 0, stormed.demo.log()[-3000:]
    found = compare_stores(undisturbed.store, stormed.demo.store, tmp_path)
    assert (found.draws, found.patches) == (1600, 16)
    assert found.identical, found.lines()
    assert not found.resampled
    assert stormed.demo.printed() == undisturbed.table()


def test_what_was_published_and_not_reported_is_not_generated_again(stormed: TaskEnded) -> None:
    """A strike costs at most what was in flight and what was finished and not yet published."""
    traces = stormed.demo.traces()
    lost = sum(traces[name] - 1 for name in stormed.demo.held())
    strikes_on_engines = sum(strike.table == "draws" for strike in MATRIX) + 1  # and it stalls
    in_flight = 8
    assert 0 < lost <= strikes_on_engines * 2 * in_flight


def test_engine_that_stalls_is_discarded_and_named_with_its_log(stormed: TaskEnded) -> None:
    line = next(line for line in stormed.demo.log().splitlines() if "has generated nothing for 4 s" in line)
    (engine,) = re.findall(r"discarding (engine-\d+)", line)
    lost = next(line for line in stormed.demo.log().splitlines() if f"{engine} lost: hang" in line)
    (log,) = re.findall(r"\(log: (\S+)\)", lost)
    assert Path(log).is_file()


def test_tracking_server_killed_amid_the_sweep_is_said_once_and_sync_makes_it_right(
    stormed: TaskEnded, tracking: Tracking, undisturbed: Demo
) -> None:
    assert tracking.has_written
    assert stormed.demo.log().count("MLflow cannot be written") == len(stormed.statuses)
    demo = Demo(stormed.demo.folder, GRID)
    assert 0 < len(demo.mlflow_runs()) < len(undisturbed.mlflow_runs()), "it holds what the server wrote"
    for _ in range(2):
        assert main(["sync", str(demo.folder / "grid.yaml"), "--store", demo.store.uri]) == 0
        assert set(demo.mlflow_runs().values()) == {1}
        assert len(demo.mlflow_runs()) == len(undisturbed.mlflow_runs())


def test_drill_reaches_processes_on_other_machines_through_ray(cluster: Cluster) -> None:
    assert run_on_host(socket.gethostname(), children, os.getpid()), "the cluster's own processes are ours"
    with pytest.raises(ValueError, match="no living node of the cluster is called elsewhere"):
        run_on_host("elsewhere", children, os.getpid())
