"""Threads as the host of workers: the same events as Ray gives (test_ray_backend.py)."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.cluster.local_backend import LocalBackend
from orchestrator.scheduler.events import Event, Reported, WorkerLost, WorkerReady
from tests.support.ray_recipes import (
    BETRAY,
    BREAK,
    COUNT,
    REPORTS,
    WAIT,
    DeedRecipe,
    FailingRecipe,
    NotedEngines,
    deed,
    noted_recipe,
)
from workers.failure import Failure, FailureKind
from workers.messages import Heartbeat, TaskEnded


def until(backend: LocalBackend, kind: type, count: int = 1) -> list[Event]:
    """Poll until `count` events or reports of this kind have come; returns all events."""
    events: list[Event] = []
    while sum(isinstance(e, kind) or isinstance(getattr(e, "report", None), kind) for e in events) < count:
        events += poll(backend)
    return events


def poll(backend: LocalBackend) -> Sequence[Event]:
    events = backend.poll(60.0)
    assert events, "nothing happened in 60 s"
    return events


@pytest.fixture
def recipe(tmp_path: Path) -> DeedRecipe:
    return DeedRecipe(str(tmp_path / "closed"))


def test_worker_is_ready_runs_a_task_and_is_retired_in_order(recipe: DeedRecipe) -> None:
    backend = LocalBackend(cpus=1)
    backend.start("one", recipe, gpus=0)
    backend.assign("one", deed(COUNT))
    (ready, *said) = until(backend, TaskEnded)
    backend.retire("one")
    assert isinstance(ready, WorkerReady)
    assert said == [*(Reported("one", Heartbeat(COUNT, n)) for n in range(REPORTS)), Reported("one", TaskEnded(COUNT))]
    (lost,) = until(backend, WorkerLost)
    assert lost.failure.kind == "retired"
    assert Path(recipe.closed).read_text() == "one"


def test_killed_worker_is_lost_once_and_not_heard_of_again(recipe: DeedRecipe) -> None:
    backend, failure = LocalBackend(cpus=1), Failure(FailureKind.HANG, "no progress")
    backend.start("one", recipe, gpus=0)
    backend.assign("one", deed(WAIT))
    until(backend, Heartbeat, REPORTS)
    backend.kill("one", failure)
    backend.kill("one", Failure(FailureKind.HANG, "killed twice"))
    backend.assign("one", deed(COUNT))
    assert backend.poll(0) == [WorkerLost("one", failure)]
    backend.start("two", recipe, gpus=0)
    backend.retire("two")
    assert {event.worker for event in until(backend, WorkerLost)} == {"two"}


@pytest.mark.parametrize(
    ("task", "failure"),
    [
        (BETRAY, Failure(FailureKind.PROOF, "the worker is at fault")),
        (BREAK, Failure(FailureKind.WORKER_ERROR, "RuntimeError: a fault\nthat nobody foresaw")),
    ],
)
def test_worker_that_raises_is_lost_with_its_failure(recipe: DeedRecipe, task: str, failure: Failure) -> None:
    backend = LocalBackend(cpus=1)
    backend.start("one", recipe, gpus=0)
    backend.assign("one", deed(task))
    assert until(backend, WorkerLost)[-1] == WorkerLost("one", failure)


def test_worker_that_cannot_be_built_is_lost_with_the_cause() -> None:
    backend = LocalBackend(cpus=1)
    backend.start("one", FailingRecipe("37 GiB are not there"), gpus=0)
    assert backend.poll(60.0) == [
        WorkerLost("one", Failure(FailureKind.WORKER_ERROR, "MemoryError: 37 GiB are not there"))
    ]


def test_one_thread_builds_an_engine_and_does_all_that_is_asked_of_it(tiny: Path, tmp_path: Path) -> None:
    backend = LocalBackend(cpus=1)
    recipe, shard = noted_recipe(tmp_path, tiny)
    backend.start("one", recipe, gpus=0)
    backend.assign("one", shard)
    until(backend, TaskEnded)
    backend.retire("one")
    until(backend, WorkerLost)
    assert isinstance(recipe.start_engine, NotedEngines)
    threads = recipe.start_engine.threads()
    assert threads.keys() == {"construction", "facts", "load", "submit", "step", "close"}
    assert len(set.union(*threads.values())) == 1, threads
