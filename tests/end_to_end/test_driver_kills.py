"""The driver is killed 25 times over one demo sweep: at log lines, and before, during and after commits of its workers.

Everything is real but the engine, which keeps a ledger of all that it generates: the demo grid, Ray, pruning, grading,
store and MLflow. One Ray cluster serves all runs, as a user's would.
"""

import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from ray.cluster_utils import Cluster

from orchestrator.drill.compare_stores import StoreComparison, compare_stores
from tests.support.drilled_demo import ROOT, Demo, Trace
from tests.support.faulty_store import Action, Moment, StoreFault, Target, claim_driver_kill, happened

GRID = (ROOT / "examples" / "tiny" / "grid.yaml").read_text().partition("runtime:")[
    0
] + "runtime: {engines: 1, slots: 2, in_flight: 16, commit_seconds: 0.001}"
KILLS = 25
DRAWS, GRADES, PATCHES = 2000, 5069, 5
FAULTS = KILLS - 6
LINES = (1, 2, 3, 4, 5, 6)
"""Further kills come as a run says its n-th line."""

pytestmark = pytest.mark.timeout(900)  # one sweep with all its faults is one fixture


def faults(seed: int) -> tuple[StoreFault, ...]:
    """Every table and moment at least once, the rest at random; one of them freezes the driver instead."""
    random = Random(seed)
    sizes = {"patches": PATCHES - 2, "draws": DRAWS - 100, "grades": GRADES - 1500}
    where = [(table, moment) for table in sizes for moment in Moment]
    where += [(random.choice(("draws", "grades")), random.choice(list(Moment))) for _ in range(FAULTS - 9)]
    chosen = [
        StoreFault(
            table, moment, Target.DRIVER, Action.HANG if number == 4 else Action.KILL, random.randrange(sizes[table])
        )
        for number, (table, moment) in enumerate(where)
    ]
    return tuple(sorted(chosen, key=lambda fault: fault.at))


@dataclass(frozen=True)
class Killed:
    """The demo after its kills."""

    demo: Demo
    kills: int
    status: int
    made_again: Counter[Trace]
    """Traces that were generated although the store held them when the run began."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for every run, as the environment tells them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.chdir(ROOT)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        environment.setenv("RAY_ADDRESS", cluster.address)
        yield
        cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    demo = Demo(tmp_path_factory.mktemp("undisturbed"), GRID)
    demo.finish_here()
    return demo


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    demo, chosen, lines = Demo(tmp_path_factory.mktemp("killed"), GRID), faults(seed=6), list(LINES)
    frozen = {fault.name for fault in chosen if fault.action is Action.HANG}
    kills, runs, made_again = 0, 0, Counter()
    while True:
        held, before = demo.held(), demo.traces()
        driven, heard, runs = demo.start(chosen), 0, runs + 1
        last = lines[0] if runs % 2 and lines else 0
        while driven.status is None:
            heard += driven.next_line(0.1) is not None
            if heard and heard == last and claim_driver_kill(demo.ledger, driven.process.pid):
                lines.pop(0)
                driven.kill()
            elif frozen & happened(demo.ledger):  # nobody watches a driver but its user, who kills it
                frozen.clear()
                driven.kill()
        made_again += Counter({name: n for name, n in (demo.traces() - before).items() if name in held})
        if driven.status != -signal.SIGKILL:
            return Killed(demo, kills, driven.status, made_again)
        kills += 1


def test_every_kill_happened_and_the_last_run_is_complete(killed: Killed) -> None:
    assert happened(killed.demo.ledger) == {fault.name for fault in faults(seed=6)}
    assert killed.kills == KILLS
    assert killed.status == 0, killed.demo.log()[-3000:]


def test_killed_sweep_equals_the_undisturbed_one(killed: Killed, undisturbed: Demo, tmp_path: Path) -> None:
    found: StoreComparison = compare_stores(undisturbed.store, killed.demo.store, tmp_path)
    assert (found.draws, found.grades, found.patches) == (DRAWS, GRADES, PATCHES)
    assert found.identical, found.lines()
    assert not found.resampled
    assert killed.demo.printed() == undisturbed.table()


def test_no_committed_draw_is_generated_again(killed: Killed) -> None:
    assert killed.made_again == Counter()


def test_mlflow_has_each_run_once(killed: Killed, undisturbed: Demo) -> None:
    runs = killed.demo.mlflow_runs()
    assert set(runs.values()) == {1}
    assert len(runs) == len(undisturbed.mlflow_runs())
