"""Ray as the host of workers, on a real local Ray: what happens to a worker process, as events."""

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from orchestrator.cluster.ray_backend import RayBackend, cores_per_worker
from orchestrator.scheduler.events import Event, Reported, WorkerLost, WorkerReady
from tests.support.ray_recipes import (
    BETRAY,
    BREAK,
    COUNT,
    REPORTS,
    STUMBLE,
    WAIT,
    DeedRecipe,
    FailingRecipe,
    NotedEngines,
    deed,
    noted_recipe,
)
from workers.failure import Failure, FailureKind
from workers.messages import Graded, Heartbeat, TaskEnded, TaskFailed
from workers.recipes import Recipe

SECONDS = 60


class Fleet:
    """A backend and everything that it has said."""

    def __init__(self, backend: RayBackend, folder: Path) -> None:
        self.backend, self._folder = backend, folder
        self.heard: list[Event] = []
        self._started = 0

    def start(self) -> str:
        """Begin to start a worker; returns its name, which no other has."""
        name = self._new_name()
        self.backend.start(name, DeedRecipe(str(self.closed(name))), gpus=0)
        return name

    def start_as(self, recipe: Recipe) -> str:
        """Begin to start a worker of another kind."""
        name = self._new_name()
        self.backend.start(name, recipe, gpus=0)
        return name

    def _new_name(self) -> str:
        self._started += 1
        return f"worker-{self._started}"

    def start_ready(self) -> tuple[str, WorkerReady]:
        name = self.start()
        (ready,) = self.listen(name, WorkerReady)
        assert isinstance(ready, WorkerReady)
        return name, ready

    def closed(self, name: str) -> Path:
        """The file that this worker writes when it is closed in order."""
        return self._folder / f"{name}.closed"

    def of(self, name: str) -> list[Event]:
        return [event for event in self.heard if getattr(event, "worker", None) == name]

    def listen(self, name: str, kind: type, count: int = 1) -> list[Event]:
        """Poll until the backend has said `count` events or reports of this kind about this worker; returns them."""
        deadline = time.monotonic() + SECONDS
        while True:
            found = [e for e in self.of(name) if isinstance(e, kind) or isinstance(getattr(e, "report", None), kind)]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"no {kind.__name__} of {name} in {SECONDS} s; heard {self.of(name)}"
            self.heard += self.backend.poll(1.0)

    def prove_goes_on(self) -> None:
        """Run a new worker from start to end. What a late echo of an earlier worker would be is heard on the way."""
        name, _ = self.start_ready()
        self.backend.assign(name, deed(COUNT))
        self.listen(name, TaskEnded)
        self.backend.retire(name)
        self.listen(name, WorkerLost)


@pytest.fixture(scope="module")
def backend() -> Iterator[RayBackend]:
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ADDRESS", raising=False)
        backend = RayBackend.connect()
        yield backend
        backend.close()
    assert not ray.is_initialized(), "closing lets go of Ray"


@pytest.fixture
def fleet(backend: RayBackend, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that ends empty: every worker of a test has to be gone before the next test needs its core."""
    fleet = Fleet(backend, tmp_path)
    yield fleet
    assert fleet.backend.poll(0) == [], "nothing is left to say"


def heartbeats(name: str, task: str) -> list[Reported]:
    return [Reported(name, Heartbeat(task, count)) for count in range(REPORTS)]


def wait_gone(pid: int) -> None:
    """Ray kills asynchronously: wait until the process has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([process], [], [], SECONDS)
    finally:
        os.close(process)
    assert ended, f"process {pid} is still alive after {SECONDS} s"


def test_worker_is_ready_runs_a_task_and_is_retired_in_order(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    fleet.backend.assign(name, deed(COUNT))
    fleet.listen(name, TaskEnded)
    fleet.backend.retire(name)
    (lost,) = fleet.listen(name, WorkerLost)
    assert isinstance(lost, WorkerLost)
    assert fleet.of(name) == [ready, *heartbeats(name, COUNT), Reported(name, TaskEnded(COUNT)), lost]
    assert lost.failure.kind == "retired"
    assert fleet.closed(name).read_text() == name
    wait_gone(ready.facts.pid)


def test_one_thread_builds_an_engine_and_does_all_that_is_asked_of_it(fleet: Fleet, tiny: Path, tmp_path: Path) -> None:
    """A device's streams belong to a thread: what another thread computes is read before it is there."""
    recipe, shard = noted_recipe(tmp_path, tiny)
    name = fleet.start_as(recipe)
    fleet.listen(name, WorkerReady)
    fleet.backend.assign(name, shard)
    fleet.listen(name, TaskEnded)
    fleet.backend.retire(name)
    fleet.listen(name, WorkerLost)
    assert isinstance(recipe.start_engine, NotedEngines)
    threads = recipe.start_engine.threads()
    assert threads.keys() == {"construction", "facts", "load", "submit", "step", "close"}
    assert len(set.union(*threads.values())) == 1, threads


def test_facts_name_the_log_that_the_worker_writes(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    assert f"{name} was built" in Path(ready.facts.log).read_text()
    fleet.backend.retire(name)
    fleet.listen(name, WorkerLost)


def test_worker_without_a_gpu_has_the_users_threads_and_as_many_cores(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = fleet.backend.devices().cpus
    for told, threads in ((None, 1), ("2", 2)):
        if told:
            monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert fleet.backend.devices().cpus == cores // threads
        name, ready = fleet.start_ready()
        assert f"OMP_NUM_THREADS={threads}\n" in Path(ready.facts.log).read_text()
        fleet.backend.retire(name)
        fleet.listen(name, WorkerLost)


@pytest.mark.parametrize(
    ("wanted", "nodes", "cores"),
    [
        (None, [8], 1),
        ("4", [8], 4),
        ("64", [8, 16], 16),  # more than any node has could never be placed
        ("4,2", [8], 1),
        ("0", [8], 1),
        ("2", [], 1),
    ],
)
def test_cores_of_a_worker_are_what_the_user_says_as_far_as_a_node_has_them(
    wanted: str | None, nodes: list[int], cores: int
) -> None:
    assert cores_per_worker(wanted, nodes) == cores


def test_killed_worker_is_lost_once_and_its_reports_stay(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    fleet.backend.assign(name, deed(WAIT))
    fleet.listen(name, Heartbeat, REPORTS)
    os.kill(ready.facts.pid, signal.SIGKILL)
    (lost,) = fleet.listen(name, WorkerLost)
    assert isinstance(lost, WorkerLost)
    fleet.prove_goes_on()
    assert fleet.of(name) == [ready, *heartbeats(name, WAIT), lost]
    assert lost.failure.kind == "worker-lost"
    assert lost.failure.log == ready.facts.log
    assert not fleet.closed(name).exists()


def test_worker_that_cannot_be_built_is_lost_with_the_cause(fleet: Fleet) -> None:
    fleet.backend.start("unbuildable", FailingRecipe("37 GiB are not there"), gpus=0)
    (lost,) = fleet.listen("unbuildable", WorkerLost)
    assert isinstance(lost, WorkerLost)
    assert "MemoryError" in lost.failure.cause
    assert "37 GiB are not there" in lost.failure.cause
    assert "\n" not in lost.failure.cause
    assert lost.failure.kind == "worker-error"
    assert "raise MemoryError(self.cause)" in Path(lost.failure.log).read_text(), "the log has the traceback"
    fleet.prove_goes_on()
    assert fleet.of("unbuildable") == [lost]


def test_discarded_worker_is_lost_with_the_failure_handed_in_and_dies(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    fleet.backend.assign(name, deed(WAIT))
    fleet.listen(name, Heartbeat, REPORTS)
    failure = Failure(FailureKind.HANG, "no progress for 600 s", ready.facts.log)
    fleet.backend.kill(name, failure)
    fleet.backend.kill(name, Failure(FailureKind.HANG, "discarded twice"))
    fleet.backend.assign(name, deed(COUNT))  # nobody has polled: whoever gives orders cannot know yet
    fleet.backend.retire(name)
    fleet.listen(name, WorkerLost)
    wait_gone(ready.facts.pid)
    fleet.prove_goes_on()
    assert fleet.of(name) == [ready, *heartbeats(name, WAIT), WorkerLost(name, failure)]


def test_head_that_does_not_tell_of_notices_ends_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def fail() -> dict[str, int]:
        asked.append(time.monotonic())
        raise ray.exceptions.RpcError("the head does not answer", 14)

    monkeypatch.setattr(ray._private.state.state, "get_draining_nodes", fail)
    while not asked:
        assert fleet.backend.poll(0.1) == []
    fleet.prove_goes_on()


def test_worker_discarded_while_it_starts_is_lost(fleet: Fleet) -> None:
    name = fleet.start()
    failure = Failure(FailureKind.HANG, "not ready in time")
    fleet.backend.kill(name, failure)
    fleet.prove_goes_on()
    assert fleet.of(name) == [WorkerLost(name, failure)]


def test_task_that_fails_leaves_its_worker_well_for_another(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    fleet.backend.assign(name, deed(STUMBLE))
    (failed,) = fleet.listen(name, TaskFailed)
    failure = Failure(FailureKind.BAD_INPUT, "the task is at fault", ready.facts.log)
    assert failed == Reported(name, TaskFailed(STUMBLE, failure))
    fleet.backend.assign(name, deed(COUNT))
    fleet.listen(name, TaskEnded)
    fleet.backend.retire(name)
    fleet.listen(name, WorkerLost)
    assert fleet.of(name)[:-1] == [
        ready,
        *heartbeats(name, STUMBLE),
        failed,
        *heartbeats(name, COUNT),
        Reported(name, TaskEnded(COUNT)),
    ]


def test_worker_fault_loses_the_worker_with_its_own_failure(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    fleet.backend.assign(name, deed(BETRAY))
    (lost,) = fleet.listen(name, WorkerLost)
    assert lost == WorkerLost(name, Failure(FailureKind.PROOF, "the worker is at fault", ready.facts.log))
    wait_gone(ready.facts.pid)
    assert fleet.of(name) == [ready, *heartbeats(name, BETRAY), lost]


def test_unforeseen_exception_loses_the_worker_with_one_line(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    fleet.backend.assign(name, deed(BREAK))
    (lost,) = fleet.listen(name, WorkerLost)
    failure = Failure(FailureKind.WORKER_ERROR, "RuntimeError: that nobody foresaw", ready.facts.log)
    assert lost == WorkerLost(name, failure)
    wait_gone(ready.facts.pid)
    assert fleet.of(name) == [ready, *heartbeats(name, BREAK), lost]


def test_retiring_reaches_a_running_task_which_ends_in_order(fleet: Fleet) -> None:
    name, ready = fleet.start_ready()
    fleet.backend.assign(name, deed(WAIT))
    fleet.listen(name, Heartbeat, REPORTS)
    fleet.backend.retire(name)
    (lost,) = fleet.listen(name, WorkerLost)
    assert isinstance(lost, WorkerLost)
    said = Reported(name, Graded(WAIT, "asked to stop", 0))
    assert fleet.of(name) == [ready, *heartbeats(name, WAIT), said, Reported(name, TaskEnded(WAIT)), lost]
    assert lost.failure.kind == "retired"
    assert fleet.closed(name).read_text() == name
