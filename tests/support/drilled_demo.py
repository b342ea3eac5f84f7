"""The demo sweep under Ray with scripted engines, in a folder of its own: run, run again, and looked at."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from ray.cluster_utils import Cluster

from orchestrator.cluster.local_backend import LocalBackend
from orchestrator.drill.faults import SweepProcess
from orchestrator.driver.driver import Driver
from orchestrator.driver.make_core import make_core
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.grid.parse import read_grid
from orchestrator.plan.plan import make_plan
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.stored import read_stored
from orchestrator.results.cells import read_results
from orchestrator.results.table import final_table
from orchestrator.results.tracking import sync
from orchestrator.store.store import Store, load_draws
from tests.support import ROOT
from tests.support.faulty_store import StoreFault, write_faults
from workers.engines.scripted_engine import ScriptedEngines

SWEEP = (sys.executable, "-m", "tests.support.drilled_sweep")

Trace = tuple[str, tuple[int, ...]]
"""(digest of the weights, prompt ids): what names a trace where decoding is greedy."""


@contextmanager
def cluster_of(cores: int, **environment: str) -> Iterator[Cluster]:
    """A Ray cluster that sweeps join by the environment: a head without cores, and a node that holds all workers that
    need one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_AUTH_MODE": "disabled", **environment}.items():
            patch.setenv(name, value)
        patch.chdir(ROOT)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.add_node(num_cpus=cores)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


@dataclass
class Demo:
    """A sweep of `grid` into a store beside it."""

    folder: Path
    grid: str

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.store = Store.open(str(self.folder / "store"))
        self.ledger = self.folder / "ledger"
        self.engines = ScriptedEngines(str(self.ledger))
        (self.folder / "grid.yaml").write_text(self.grid)

    def start(
        self, faults: Sequence[StoreFault] = (), *options: str, before: Sequence[str] = (), log: str = "log"
    ) -> SweepProcess:
        """The sweep's command, run or run again: with further options, or by another command `before` it."""
        write_faults(self.folder / "faults.json", faults)
        grid, store, ledger, file = (
            str(self.folder / name) for name in ("grid.yaml", "store", "ledger", "faults.json")
        )
        command = [*before, *SWEEP, grid, "--store", store, "--ledger", ledger, "--faults", file, *options]
        return SweepProcess(command, self.folder / log)

    def finish(self) -> int:
        """Run it undisturbed to its end; returns the exit status."""
        driven = self.start()
        while driven.status is None:
            driven.next_line(1.0)
        return driven.status

    def finish_here(self) -> None:
        """Run it undisturbed in threads of this process, and print no table."""
        resolved = resolve_grid(read_grid(self.folder / "grid.yaml"))
        plan, backend = make_plan(resolved, read_stored(self.store, resolved)), LocalBackend(cpus=2)
        core = make_core(plan, self.store, resolved.grid.runtime, backend.devices())
        recipes = WorkerRecipes(resolved.grid.runtime, self.store, self.folder / "scratch", self.engines)
        driver = Driver(core, plan, backend, recipes)
        try:
            assert driver.run() == "done"
        finally:
            backend.close()
        sync(self.store, resolved)

    def held(self) -> set[Trace]:
        """The traces that are committed."""
        rows = load_draws(self.store, ["weights_digest", "prompt_ids"]).to_pylist()
        return {(row["weights_digest"], tuple(row["prompt_ids"])) for row in rows}

    def traces(self) -> Counter[Trace]:
        """How often each trace was generated, over all engines there ever were."""
        made = self.engines.generated()
        return Counter((hashlib.sha256(one.variant.encode()).hexdigest(), one.prompt_ids) for one in made)

    def log(self, name: str = "log") -> str:
        """What all runs said that wrote this log."""
        return (self.folder / name).read_text()

    def printed(self) -> str:
        """The table that was printed last."""
        return (self.folder / "log.out").read_text().rpartition("accuracy by thinking-token limit")[2].strip()

    def table(self) -> str:
        """The table that its store gives, as a sweep prints it."""
        table = final_table(read_results(self.store, resolve_grid(read_grid(self.folder / "grid.yaml"))))
        return table.rpartition("accuracy by thinking-token limit")[2].strip()

    @property
    def database(self) -> str:
        """MLflow's, where nobody says otherwise."""
        return f"sqlite:///{self.folder / 'store' / 'mlflow.db'}"

    def mlflow_runs(self) -> Counter[str]:
        """How often MLflow has a run of each name."""
        client = MlflowClient(self.database)
        (experiment,) = client.search_experiments(filter_string="name = 'prunesweep'")
        return Counter(run.data.tags["prunesweep.id"] for run in client.search_runs([experiment.experiment_id]))
