"""The end of a sweep, as MLflow sees it: whole when it is done, told when it was stopped, and never waited for long."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from orchestrator.driver.tracking_thread import TrackingThread
from orchestrator.scheduler.events import Reported
from tests.support.builders import TinySweep, make_core
from workers.messages import Graded


@contextmanager
def black_hole() -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def grade(tracking: TrackingThread, sweep: TinySweep) -> None:
    """Tell that a context of the sweep has been graded."""
    (context,) = (owed.decoding.context.context_id for owed in sweep.plan().contexts)
    tracking.observe(make_core(1), Reported("grade-1", Graded("task", context, 8)), [], 0.0)


def runs(sweep: TinySweep) -> dict[str, Run]:
    """MLflow's runs by name, or none while there is no database."""
    if not (sweep.folder / "store" / "mlflow.db").exists():
        return {}
    client = MlflowClient(f"sqlite:///{sweep.folder}/store/mlflow.db")
    found = client.search_experiments(filter_string="name = 'prunesweep'")
    return {run.info.run_name: run for run in client.search_runs([one.experiment_id for one in found])}


def test_server_that_never_answers_holds_up_neither_a_stopped_sweep_nor_the_writing_of_others(
    sweep: TinySweep,
) -> None:
    said: list[str] = []
    with black_hole() as server:
        sweep.runtime = {"tracking_uri": f"http://127.0.0.1:{server.getsockname()[1]}"}
        with TrackingThread(sweep.store, sweep.resolve_grid(), said.append) as tracking:
            grade(tracking, sweep)
            assert select.select([server], [], [], 60)[0], "it never asked the server"
            assert not tracking.finish(seconds=0.1), "it writes still, and nobody else may"
            began = time.monotonic()
            tracking.stop()
        assert time.monotonic() - began < 10
    assert ["`python -m orchestrator sync " in line for line in said] == [True, True]


def test_stopped_sweep_is_told_as_stopped_and_what_was_graded_by_then_is_there(sweep: TinySweep) -> None:
    assert sweep.run() == "done"
    with TrackingThread(sweep.store, sweep.resolve_grid(), print) as tracking:
        grade(tracking, sweep)
        while (cell := runs(sweep).get("dense @ 32")) is None or cell.info.status != "FINISHED":
            select.select([], [], [], 0.1)
        assert runs(sweep)["tiny"].info.status == "RUNNING"
        tracking.stop()
    assert runs(sweep)["tiny"].info.status == "KILLED"
