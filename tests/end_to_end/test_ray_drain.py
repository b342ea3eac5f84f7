"""A node that is to be taken away amid a sweep: Ray is told as a spot notice tells it, and its workers hand in."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.driver.driver import Driver
from orchestrator.driver.make_core import make_core
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.results.cells import read_results
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Command,
    Event,
    NodeDraining,
    Reported,
    Role,
    StartWorker,
    WorkerLost,
    WorkerReady,
)
from tests.support.builders import TinySweep
from tests.support.drilled_demo import cluster_of
from workers.engines.scripted_engine import Stall
from workers.messages import Committed

NOTICE_SECONDS = 120

pytestmark = pytest.mark.timeout(120)


class Weather:
    """An observer that has the first node drained, once something is committed, and a second one come."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.spot = cluster.list_all_nodes()[1]
        self.engines: dict[str, str] = {}
        """Engine -> its node."""
        self.left: list[str] = []
        self.lost: dict[str, str] = {}
        """Worker -> the kind of its end."""

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        self.engines |= {c.worker: "" for c in commands if isinstance(c, StartWorker) and c.role is Role.ENGINE}
        match event:
            case WorkerReady(worker, facts) if worker in self.engines:
                self.engines[worker] = node_of(facts.pid)
            case Reported(report=Committed()) if len(self._cluster.list_all_nodes()) == 2:
                self._cluster.add_node(num_cpus=2)
                drain(self.spot.node_id)
            case NodeDraining(workers, reason):
                assert self.spot.node_id[:8] in reason
                self.left += workers
            case WorkerLost(worker, failure):
                self.lost[worker] = failure.kind


def node_of(pid: int) -> str:
    """The node that one of Ray's workers is of."""
    arguments = Path(f"/proc/{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1]}/cmdline").read_text()
    return next(one.partition("=")[2] for one in arguments.split("\0") if one.startswith("--node_id="))


def drain(node: str) -> None:
    """Announce that `node` will be taken away, as a cloud's notice does."""
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int((time.time() + NOTICE_SECONDS) * 1000)
    accepted, why_not = ray._private.worker.global_worker.gcs_client.drain_node(node, reason, "spot notice", deadline)
    assert accepted, why_not


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with cluster_of(2) as cluster:
        yield cluster


def test_workers_of_a_node_that_will_be_taken_hand_in_and_are_replaced_elsewhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    sweep = TinySweep(tmp_path, limits=(8,), benchmarks={"first": range(40)})
    weather, plan, backend = Weather(cluster), sweep.plan(), RayBackend.connect()
    try:
        core = make_core(plan, sweep.store, plan.resolved.grid.runtime, backend.devices())
        # It would never end without the notice, nor can it end before that is heard.
        engines = replace(sweep.engines, faults=(Stall(at_ask=20, times=1),))
        recipes = WorkerRecipes(plan.resolved.grid.runtime, sweep.store, tmp_path / "scratch", engines)
        driver = Driver(core, plan, backend, recipes, [weather])
        assert driver.run() == "done"
    finally:
        backend.close()
    first, second = weather.engines
    assert first in weather.left
    assert second not in weather.left
    assert set(Counter(weather.left).values()) == {1}, "each is told once"
    assert set(weather.lost.values()) == {"retired"}
    assert core.state.counters.workers_lost == core.state.counters.failed == 0
    (other,) = {node.node_id for node in cluster.worker_nodes} - {weather.spot.node_id}
    assert [weather.engines[name] for name in (first, second)] == [weather.spot.node_id, other]
    assert read_results(sweep.store, sweep.resolve_grid()).complete
    committed = Counter((row["prompt_id"], row["seed"]) for row in sweep.rows())
    assert set(committed.values()) == {1}
