"""Workers that do as they are told, for tests of what hosts them. Ray's worker processes import this module.

A task is a `GradeTask` whose `task_id` names one of the deeds below.
"""

import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.draws import Ask
from eval.spec import SamplingSpec
from orchestrator.store.store import Store
from tests.support.builders import make_context, make_item
from workers.engines.engine import EngineSettings, Finished, Proof
from workers.engines.scripted_engine import ScriptedEngine, ScriptedEngines
from workers.evaluation import FeedSettings
from workers.failure import Failure, FailureKind
from workers.messages import (
    Graded,
    GradeTask,
    Heartbeat,
    Report,
    Shape,
    Shard,
    Task,
    TaskEnded,
    TaskFailed,
    WorkerInfo,
)
from workers.recipes import EngineRecipe
from workers.worker import Inbox, Worker, WorkerFault

COUNT, WAIT, STUMBLE, BETRAY, BREAK = "count", "wait", "stumble", "betray", "break"
REPORTS = 3


def deed(name: str) -> GradeTask:
    """The task that has a `DeedWorker` do `name`."""
    return GradeTask(name, "context", "answers", ())


class DeedWorker:
    """Reports three heartbeats, and then ends as the task says."""

    def __init__(self, name: str, log: str, closed: str) -> None:
        self._name, self._log, self._closed = name, log, closed
        threads = os.environ.get("OMP_NUM_THREADS")
        print(f"{name} was built with OMP_NUM_THREADS={threads}", file=sys.stderr, flush=True)

    def facts(self) -> WorkerInfo:
        return WorkerInfo(self._name, socket.gethostname(), os.getpid(), self._log)

    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        for count in range(REPORTS):
            yield Heartbeat(task.task_id, count)
        match task.task_id:
            case "wait":
                inbox.closes_within(600)
                yield Graded(task.task_id, "asked to stop", 0)
            case "stumble":
                yield TaskFailed(task.task_id, Failure(FailureKind.BAD_INPUT, "the task is at fault", self._log))
                return
            case "betray":
                raise WorkerFault(Failure(FailureKind.PROOF, "the worker is at fault", self._log))
            case "break":
                raise RuntimeError("a fault\nthat nobody foresaw")
        yield TaskEnded(task.task_id)

    def close(self) -> None:
        Path(self._closed).write_text(self._name)


@dataclass(frozen=True)
class DeedRecipe:
    """How to build a `DeedWorker`. `closed` is a file that it writes when it is closed in order."""

    closed: str

    def build(self, name: str, log: str) -> Worker:
        return DeedWorker(name, log, self.closed)


@dataclass(frozen=True)
class FailingRecipe:
    """A worker that cannot be built, as an engine without memory cannot."""

    cause: str

    def build(self, name: str, log: str) -> Worker:
        raise MemoryError(self.cause)


class NotedEngine(ScriptedEngine):
    """A scripted engine that notes the native thread of everything that it is asked for."""

    def __init__(self, base: Path, settings: EngineSettings, notes: str) -> None:
        self._notes = Path(notes)
        self._note("construction")
        super().__init__(base, settings, ScriptedEngines(f"{notes}.ledger"))

    def _note(self, doing: str) -> None:
        with self._notes.open("a") as file:
            file.write(f"{doing} {threading.get_native_id()}\n")

    def load(self, base: Path, patch: Path) -> Proof:
        self._note("load")
        return super().load(base, patch)

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec, rank: int = 0) -> None:
        self._note("submit")
        super().submit(name, ask, sampling, rank)

    def step(self) -> Sequence[Finished]:
        self._note("step")
        return super().step()

    def settings(self) -> Mapping[str, str]:
        self._note("facts")
        return super().settings()

    def close(self) -> None:
        self._note("close")
        super().close()


@dataclass(frozen=True)
class NotedEngines:
    """Starts engines that note their threads in the file `notes`."""

    notes: str

    def __call__(self, base: Path, layers: int, settings: EngineSettings) -> NotedEngine:
        return NotedEngine(base, settings, self.notes)

    def threads(self) -> dict[str, set[int]]:
        """What engines were asked for -> the native threads in which they were."""
        found: dict[str, set[int]] = {}
        for line in Path(self.notes).read_text().splitlines():
            doing, thread = line.split()
            found.setdefault(doing, set()).add(int(thread))
        return found


def noted_recipe(folder: Path, model: Path) -> tuple[EngineRecipe, Shard]:
    """An evaluation worker of `NotedEngines`, and a shard of one draw for it."""
    store = Store.open(str(folder / "store"))
    settings = EngineSettings("bfloat16", 512)
    recipe = EngineRecipe(
        Shape(str(model), 4, "bfloat16"), store, str(folder / "cache"), settings, FeedSettings(),
        NotedEngines(str(folder / "notes")),
    )  # fmt: skip
    return recipe, Shard("shard", make_context("c"), (make_item("p0"),))
