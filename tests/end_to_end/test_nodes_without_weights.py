"""A node that lacks what the driver has read: it is named and avoided, and no draw is given up for it."""

import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from huggingface_hub import constants
from ray.cluster_utils import Cluster

from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.console import say
from orchestrator.driver.driver import Driver
from orchestrator.driver.make_core import make_core
from orchestrator.driver.progress import notable
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.results.cells import read_results
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Command, Event, Reported, StartWorker, WorkerLost, WorkerReady
from orchestrator.store.lease import hold_lease
from orchestrator.store.store import Store
from tests.support.builders import TinySweep
from tests.support.checkpoints import edited_checkpoint, halved
from tests.support.drilled_demo import cluster_of
from tests.support.fake_hub import MODEL, fill_cache
from tests.support.ray_recipes import DeedRecipe
from workers.failure import FailureKind
from workers.messages import TaskFailed

NOWHERE = "no node of the cluster is left"

pytestmark = pytest.mark.timeout(300)


class Watch:
    """An observer that keeps what concerns machines."""

    def __init__(self) -> None:
        self.ready: dict[str, str] = {}
        """Worker -> its node."""
        self.avoided: set[str] = set()
        self.causes: list[str] = []
        self.lines: list[str] = []

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        self.avoided.update(*(c.avoid for c in commands if isinstance(c, StartWorker)))
        self.lines += [str(line) for line in notable(event, commands, dict.fromkeys(core.state.patches, "variant"))]
        match event:
            case WorkerReady(worker, _, node):
                self.ready[worker] = node
            case WorkerLost(_, failure) | Reported(report=TaskFailed(failure=failure)) if failure.kind.of_node:
                self.causes.append(f"{failure.kind}: {failure.cause}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head, and a node of two cores that looks for its hub cache where there is none."""
    with cluster_of(2, HF_HUB_CACHE="/nonexistent/hub") as cluster:
        yield cluster


def drive(sweep: TinySweep, watch: Watch) -> Core:
    plan, backend = sweep.plan(), RayBackend.connect()
    try:
        core = make_core(plan, sweep.store, plan.resolved.grid.runtime, backend.devices())
        recipes = WorkerRecipes(plan.resolved.grid.runtime, sweep.store, sweep.folder / "scratch", sweep.engines)
        Driver(core, plan, backend, recipes, [watch]).run()
        return core
    finally:
        backend.close()


def test_hub_model_is_resolved_by_each_node_and_a_node_without_it_is_avoided(
    cluster: Cluster, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = cluster.list_all_nodes()[1].node_id
    cache = tmp_path / "hub"
    snapshot = fill_cache(cache, tiny)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))  # the driver's own; it is not passed on
    sweep = TinySweep(tmp_path, MODEL, [{"method": "dense"}, {"method": "magnitude", "sparsity": 0.5}])
    sweep.runtime = {"slots": 4}
    with monkeypatch.context() as environment:
        environment.setenv("HF_HUB_CACHE", str(cache))
        good = cluster.add_node(num_cpus=1).node_id  # an engine or both pruners must try the other node first
    watch = Watch()
    core = drive(sweep, watch)
    assert core.finished == "done", watch.lines
    assert core.state.counters.failed == 0
    assert read_results(sweep.store, sweep.resolve_grid()).complete
    assert watch.causes, "the node without the model was tried"
    assert all(cause.startswith(f"source: {socket.gethostname()}: model {MODEL}: ") for cause in watch.causes)
    assert set(core.state.avoided) == {MODEL}
    assert set(core.state.avoided[MODEL]) == {without}
    assert watch.avoided <= {without}
    assert good in watch.ready.values()
    assert str(snapshot) not in repr(core.state.contexts), "no path of the driver's travels"
    assert sweep.plan().nothing_owed


def test_worker_is_started_on_no_node_that_is_to_be_avoided(cluster: Cluster, tmp_path: Path) -> None:
    if len(cluster.list_all_nodes()) < 3:
        cluster.add_node(num_cpus=1)
    first, second = (node.node_id for node in cluster.list_all_nodes()[1:])
    backend = RayBackend.connect()
    try:
        for worker, avoided in (("a", first), ("b", second)):
            backend.start(worker, DeedRecipe(str(tmp_path / worker)), 0, (avoided,))
        backend.start("nowhere", DeedRecipe(str(tmp_path / "nowhere")), 0, (first, second))
        nodes: dict[str, str] = {}
        lost: list[WorkerLost] = []
        while len(nodes) < 2:
            events = backend.poll(1.0)
            nodes |= {event.worker: event.node for event in events if isinstance(event, WorkerReady)}
            lost += [event for event in events if isinstance(event, WorkerLost)]
        assert nodes == {"a": second, "b": first}
        assert [(event.worker, event.node, event.failure.kind) for event in lost] == [("nowhere", "", "source")]
        assert NOWHERE in lost[0].failure.cause
    finally:
        backend.close()


def test_folder_that_no_node_has_any_more_ends_the_sweep_with_every_draw_owed(
    cluster: Cluster, tiny: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    sweep = TinySweep(tmp_path, str(model), [{"method": "magnitude", "sparsity": 0.5}])
    plan, owed = sweep.plan(), sweep.plan().draws_owed
    backend = RayBackend.connect()
    try:
        core = make_core(plan, sweep.store, plan.resolved.grid.runtime, backend.devices())
        recipes = WorkerRecipes(plan.resolved.grid.runtime, sweep.store, tmp_path / "scratch", sweep.engines)
        model.rename(tmp_path / "moved")
        reason = Driver(core, plan, backend, recipes).run()
    finally:
        backend.close()
    assert reason.startswith(f"no machine can do the work of {model}: {socket.gethostname()}: {model}: no such folder")
    (tmp_path / "moved").rename(model)
    assert sweep.plan().draws_owed == owed
    assert sweep.rows("failures") == []


def test_node_that_sees_another_store_is_named(cluster: Cluster, tmp_path: Path) -> None:
    """The driver's claim is not there: as on a machine where the shared folder is not mounted."""
    sweep = TinySweep(tmp_path)
    driver_store, moved = sweep.store, tmp_path / "moved"
    with hold_lease(driver_store, "tiny", say, say) as lease:
        plan, backend, watch = sweep.plan(), RayBackend.connect(lease), Watch()
        try:
            core = make_core(plan, driver_store, plan.resolved.grid.runtime, backend.devices())
            (tmp_path / "store").rename(moved)  # what workers see under the address from now on
            recipes = WorkerRecipes(plan.resolved.grid.runtime, Store.open(str(moved)), tmp_path, sweep.engines)
            reason = Driver(core, plan, backend, recipes, [watch]).run()
        finally:
            backend.close()
            shutil.rmtree(tmp_path / "store", ignore_errors=True)
            moved.rename(tmp_path / "store")
    assert f"{socket.gethostname()}: store {driver_store.uri} is another one here" in reason
    kinds = [cause.partition(":")[0] for cause in watch.causes if NOWHERE not in cause]
    assert set(kinds) == {FailureKind.OTHER_STORE}


def test_node_without_a_checkpoint_makes_every_other_patch_and_evaluates_all(
    cluster: Cluster, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its patch is made from it: the node is avoided for that patch, and for nothing else."""
    cache = tmp_path / "hub"
    fill_cache(cache, edited_checkpoint(tiny, tmp_path / "theirs", halved))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))  # the driver's own; no node has it
    sweep = TinySweep(tmp_path, variants=[{"method": "dense"}, {"method": "checkpoint", "path": MODEL}])
    core = drive(sweep, Watch())
    resolved = sweep.resolve_grid()
    dense, mine = (variant.patch_id for variant in resolved.variants)
    assert f"no machine can do the work of {tiny}: tiny" in core.finished
    assert core.state.counters.failed == 0, "its draws stay owed"
    assert set(core.state.avoided) == {mine}
    assert all(c.startswith(f"{socket.gethostname()}: ") and MODEL in c for c in core.state.avoided[mine].values())
    done = {cell.variant.patch_id: cell.metrics.complete for cell in read_results(sweep.store, resolved).cells}
    assert done == {dense: True, mine: False}
    with monkeypatch.context() as environment:
        environment.setenv("HF_HUB_CACHE", str(cache))
        cluster.add_node(num_cpus=1)
    assert drive(sweep, Watch()).finished == "done"
    assert read_results(sweep.store, resolved).complete
