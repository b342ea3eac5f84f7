"""The fault matrix: each kind of worker × kill -9, hang, error, full disk, read-only disk × before, during, after its
commit; an engine that stalls; and a node's loss.

All of it happens to one sweep on a real Ray cluster, in which only the engine is scripted: every commit meets the next
fault that is due. To add a row, add a `StoreFault`. The rows of the driver are in test_driver_kills.py, those of real
engines in test_sweep_end_to_end.py. MLflow's server is killed as soon as it has written a first run.
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
from tests.support.faulty_store import Action, Moment, StoreFault, Target, happened, repair_disk

NODE_LOST = StoreFault("draws", Moment.DURING, Target.NODE)
MATRIX = (
    *(
        StoreFault(t, moment, action=action)
        for t in ("patches", "draws", "grades")
        for action in Action
        for moment in Moment
    ),
    *(StoreFault("grades", Moment.BEFORE, Target.CHILD, action) for action in (Action.KILL, Action.HANG)),
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
class FaultedSweep:
    """A sweep at its end, and the exit status of each of its runs."""

    demo: Demo
    statuses: tuple[int, ...]


@dataclass(frozen=True)
class Tracking:
    """A real `mlflow server` over the database of the sweep with faults."""

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
    demo = Demo(tmp_path_factory.mktemp("faulted"), GRID + f"  tracking_uri: http://127.0.0.1:{port}\n")
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
def faulted(cluster: Cluster, tracking: Tracking, undisturbed: Demo) -> FaultedSweep:
    """The sweep under every fault of the matrix; a run that ends incomplete is repeated, as its message says."""
    demo, statuses, joined = tracking.demo, [], False
    tracking.wait()
    while not statuses or (statuses[-1] != 0 and len(statuses) < 4):
        driven = demo.start(MATRIX, *STALL)
        while driven.status is None:
            line = driven.next_line(0.1) or ""
            if "(full)" in line or "(refused)" in line:
                repair_disk(demo.ledger)
            if tracking.has_written:
                tracking.kill()
            if not joined and NODE_LOST.name in happened(demo.ledger):
                cluster.add_node(num_cpus=2)
                joined = True
        statuses.append(driven.status)
    return FaultedSweep(demo, tuple(statuses))


@pytest.mark.parametrize("fault", MATRIX, ids=lambda fault: fault.name)
def test_fault_happened(faulted: FaultedSweep, fault: StoreFault) -> None:
    assert fault.name in happened(faulted.demo.ledger), faulted.demo.log()[-3000:]


def test_sweep_survives_every_row_and_equals_the_undisturbed_one(
    faulted: FaultedSweep, undisturbed: Demo, tmp_path: Path
) -> None:
    assert faulted.statuses[-1] == 0, faulted.demo.log()[-3000:]
    found = compare_stores(undisturbed.store, faulted.demo.store, tmp_path)
    assert (found.draws, found.patches) == (1600, 16)
    assert found.identical, found.lines()
    assert not found.resampled
    assert faulted.demo.printed() == undisturbed.table()


def test_what_was_published_and_not_reported_is_not_generated_again(faulted: FaultedSweep) -> None:
    """A fault costs at most what was in flight and what was finished and not yet published."""
    traces = faulted.demo.traces()
    lost = sum(traces[name] - 1 for name in faulted.demo.held())
    faults_of_engines = sum(fault.table == "draws" for fault in MATRIX) + 1  # and it stalls
    in_flight = 8
    assert 0 < lost <= faults_of_engines * 2 * in_flight


def test_engine_that_stalls_is_discarded_and_named_with_its_log(faulted: FaultedSweep) -> None:
    line = next(line for line in faulted.demo.log().splitlines() if "has generated nothing for 4 s" in line)
    (engine,) = re.findall(r"discarding (engine-\d+)", line)
    lost = next(line for line in faulted.demo.log().splitlines() if f"{engine} lost: hang" in line)
    (log,) = re.findall(r"\(log: (\S+)\)", lost)
    assert Path(log).is_file()


def test_tracking_server_killed_amid_the_sweep_is_said_once_and_sync_makes_it_right(
    faulted: FaultedSweep, tracking: Tracking, undisturbed: Demo
) -> None:
    assert tracking.has_written
    assert faulted.demo.log().count("MLflow cannot be written") == len(faulted.statuses)
    demo = Demo(faulted.demo.folder, GRID)
    assert 0 < len(demo.mlflow_runs()) < len(undisturbed.mlflow_runs()), "it holds what the server wrote"
    for _ in range(2):
        assert main(["sync", str(demo.folder / "grid.yaml"), "--store", demo.store.uri]) == 0
        assert set(demo.mlflow_runs().values()) == {1}
        assert len(demo.mlflow_runs()) == len(undisturbed.mlflow_runs())


def test_drill_reaches_processes_on_other_machines_through_ray(cluster: Cluster) -> None:
    assert run_on_host(socket.gethostname(), children, os.getpid()), "the cluster's own processes are ours"
    with pytest.raises(ValueError, match="no living node of the cluster is called elsewhere"):
        run_on_host("elsewhere", children, os.getpid())
