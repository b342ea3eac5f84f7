"""The driver's own promises, under a core that ends at once: which clock it goes by, what it writes before it ends."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from orchestrator.cluster.local_backend import LocalBackend
from orchestrator.driver.driver import Driver
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Command, Event, Finish, RecordFailures
from orchestrator.store.store import Store
from tests.support.builders import TinySweep
from workers.failure import Failure, FailureKind
from workers.rows.tables import FailureRow
from workers.store import StoreUnavailable, Trouble

GIVEN_UP = Failure(FailureKind.ENGINE_LOST, "it died")


class LastOrders(Core):
    """A core that gives two draws of its only context up, and ends with the same breath."""

    def __init__(self, context_id: str) -> None:
        self.context_id, self.finished, self.told = context_id, None, 0.0

    def handle(self, event: Event, now: float) -> list[Command]:
        self.told, self.finished = now, "done"
        return [RecordFailures(self.context_id, (0, 1), GIVEN_UP, 3), Finish("done")]


@dataclass
class FullStore(Store):
    """The real store; it refuses to take failures so often."""

    refusals: int = 0

    def commit_failures(self, rows: Sequence[FailureRow]) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise StoreUnavailable("no room", Trouble.FULL)
        super().commit_failures(rows)


def end_at_once(sweep: TinySweep, store: Store) -> LastOrders:
    plan = sweep.plan()
    core = LastOrders(plan.contexts[0].decoding.context.context_id)
    recipes = WorkerRecipes(plan.resolved.grid.runtime, store, sweep.folder)
    assert Driver(core, plan, LocalBackend(cpus=2), recipes).run() == "done"
    return core


def test_failures_that_come_with_the_end_are_recorded_though_the_store_refuses_at_first(sweep: TinySweep) -> None:
    end_at_once(sweep, FullStore(sweep.store.files, refusals=1))
    assert [(f["kind"], f["cause"], f["attempts"]) for f in sweep.rows("failures")] == [
        ("engine-lost", "it died", 3)
    ] * 2


def test_store_that_refuses_the_last_failures_does_not_hold_up_the_end(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    end_at_once(sweep, FullStore(sweep.store.files, refusals=99))
    assert "no room; 2 draws that were given up are not recorded as such" in capsys.readouterr().err


def test_patience_goes_by_a_clock_that_nobody_sets_and_records_by_the_calendar(sweep: TinySweep) -> None:
    began, day = time.monotonic(), time.time()
    core = end_at_once(sweep, sweep.store)
    assert began <= core.told <= time.monotonic()
    created = sweep.store.read("failures", core.context_id, ["created_at"])["created_at"].to_pylist()
    assert [day <= moment <= time.time() for moment in created] == [True, True]
