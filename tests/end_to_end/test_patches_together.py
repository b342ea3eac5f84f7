"""Patches that share a pass, under Ray: a pruner that is killed amid its task loses only what it had not published, and
a driver that ends amid it leaves the next one no more than that to make."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest

from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.drill.compare_stores import compare_stores
from orchestrator.driver.driver import Driver
from orchestrator.driver.make_core import make_core
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Assign, Command, Event, Reported
from orchestrator.store.lease import LeaseLost
from tests.support.builders import TINY, TinySweep
from tests.support.drilled_demo import cluster_of
from tests.support.faulty_store import Action, FaultyStore, Moment, StoreFault, happened
from workers.messages import PatchMade, PruneTask

SPARSITIES = [0.1, 0.2, 0.3, 0.4, 0.5]
KILL = StoreFault("patches", Moment.AFTER, at=1)
"""The pruner dies when it has published its second patch, and before it says so."""
FREEZE = StoreFault("patches", Moment.BEFORE, action=Action.HANG, at=2)
"""The pruner stops for good before it publishes its third patch."""

pytestmark = pytest.mark.timeout(200)


class Pruning:
    """An observer that notes what pruners are given and make, and calls after so many patches."""

    def __init__(self, enough: int = 0, call: "SimpleQueue[str] | None" = None) -> None:
        self.given: list[list[str]] = []
        self.made: list[PatchMade] = []
        self._enough, self._call = enough, call

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        tasks = [c.task for c in commands if isinstance(c, Assign) and isinstance(c.task, PruneTask)]
        self.given += [[request.patch_id for request in task.patches] for task in tasks]
        if isinstance(event, Reported) and isinstance(event.report, PatchMade):
            self.made.append(event.report)
            if self._call is not None and len(self.made) == self._enough:
                self._call.put("another driver has taken over")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with cluster_of(1):
        yield


def sweep_in(folder: Path) -> TinySweep:
    """A sweep of five variants whose sparsities OWL allocates, so that they need one pass; one device."""
    folder.mkdir()
    data = {"data": str(TINY / "calibration.jsonl"), "samples": 4, "tokens": 32}
    variants = [{"method": "magnitude", "allocator": "owl", "sparsity": SPARSITIES, "calibration": data}]
    return TinySweep(folder, variants=variants, limits=(8,), temperature=0.0, seeds=(0,), runtime={"slots": 1})


def run(
    sweep: TinySweep, pruning: Pruning, faults: tuple[StoreFault, ...] = (), ends: "SimpleQueue[str] | None" = None
) -> str:
    """Run or resume a sweep under Ray. `ends`: as `Driver` takes it."""
    plan, store = sweep.plan(), FaultyStore.over(sweep.store, str(sweep.folder / "faults"), os.getpid(), faults)
    runtime = plan.resolved.grid.runtime
    with closing(RayBackend.connect()) as backend:
        core = make_core(plan, store, runtime, backend.devices())
        recipes = WorkerRecipes(runtime, store, sweep.folder / "scratch", sweep.engines)
        return Driver(core, plan, backend, recipes, [pruning], ends).run()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TinySweep:
    sweep = sweep_in(tmp_path_factory.mktemp("undisturbed") / "sweep")
    assert sweep.run() == "done"
    return sweep


def test_killed_pruner_loses_what_it_had_not_published_and_each_of_that_is_made_alone(
    undisturbed: TinySweep, tmp_path: Path
) -> None:
    sweep, pruning = sweep_in(tmp_path / "sweep"), Pruning()
    assert run(sweep, pruning, (KILL,)) == "done"
    assert happened(sweep.folder / "faults") == {KILL.name}
    together, *alone = pruning.given
    assert set(together) == sweep.store.patch_ids()
    assert sorted(map(tuple, alone)) == sorted((name,) for name in together[1:])
    took = {made.patch_id: made.seconds for made in pruning.made}
    assert [made.patch_id for made in pruning.made] == together, "each once, the most urgent first"
    assert took[together[1]] == 0.0, "it is in the store, and not made again"
    assert all(took[name] > 0 for name in together if name != together[1])
    found = compare_stores(undisturbed.store, sweep.store, tmp_path / "compared")
    assert (found.patches, found.identical) == (len(SPARSITIES), True), found.lines()


def test_next_driver_has_made_what_the_last_one_left_and_no_more(undisturbed: TinySweep, tmp_path: Path) -> None:
    ends: SimpleQueue[str] = SimpleQueue()
    sweep, first, second = sweep_in(tmp_path / "sweep"), Pruning(2, ends), Pruning()
    with pytest.raises(LeaseLost):
        run(sweep, first, (FREEZE,), ends)
    (together,) = first.given
    assert sweep.store.patch_ids() == set(together[:2])
    assert run(sweep, second) == "done"
    assert second.given == [together[2:]]
    found = compare_stores(undisturbed.store, sweep.store, tmp_path / "compared")
    assert (found.patches, found.identical) == (len(SPARSITIES), True), found.lines()
