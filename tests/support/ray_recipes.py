"""Workers that do as they are told, for tests of what hosts them. Ray's worker processes import this module.

A task is a `GradeTask` whose `task_id` names one of the deeds below.
"""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.failure import Failure, FailureKind
from workers.messages import Graded, GradeTask, Heartbeat, Report, Task, TaskEnded, TaskFailed, WorkerInfo
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
        print(f"{name} was built", file=sys.stderr, flush=True)

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
