"""Workers as threads of this process, in place of Ray: for tests of everything around it, and for debugging.

Gives the same events in the same order as `RayBackend`. One thread builds a worker, serves it and closes it. A worker
that raises an unexpected exception is lost, as its process would be. The only node has no name, and none is avoided.
"""

import os
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.cluster.backend import Devices
from orchestrator.scheduler.events import Event, Reported, WorkerLost, WorkerReady
from workers.failure import Failure, FailureKind
from workers.messages import Task
from workers.recipes import Recipe
from workers.worker import Inbox, WorkerFault, serve


@dataclass
class _Hosted:
    inbox: Inbox = field(default_factory=Inbox)
    lost: bool = False
    """Whether its `WorkerLost` is queued."""
    gone: bool = False
    """Whether its `WorkerLost` has been polled: later events of it are dropped."""


class LocalBackend:
    """Threads of this process in the role of worker processes of a cluster with `cpus` and `gpus`."""

    def __init__(self, cpus: int = os.cpu_count() or 1, gpus: int = 0) -> None:
        self._devices = Devices(cpus, (gpus,))
        self._hosted: dict[str, _Hosted] = {}
        self._events: queue.SimpleQueue[tuple[_Hosted, Event]] = queue.SimpleQueue()

    def devices(self) -> Devices:
        return self._devices

    def start(self, worker: str, recipe: Recipe, gpus: int, avoid: Sequence[str] = ()) -> None:
        hosted = self._hosted[worker] = _Hosted()
        threading.Thread(target=self._host, args=(worker, recipe, hosted), daemon=True, name=worker).start()

    def _host(self, name: str, recipe: Recipe, hosted: _Hosted) -> None:
        try:
            worker = recipe.build(name, "")
            self._emit(hosted, WorkerReady(name, worker.facts()))
            for report in serve(worker, hosted.inbox):
                if hosted.gone:
                    return
                self._emit(hosted, Reported(name, report))
            self._emit(hosted, WorkerLost(name, Failure(FailureKind.RETIRED, "closed as asked")))
        except WorkerFault as fault:
            self._emit(hosted, WorkerLost(name, fault.failure))
        except Exception as error:  # a thread that dies must be reported, as a process would be
            self._emit(hosted, WorkerLost(name, Failure(FailureKind.WORKER_ERROR, f"{type(error).__name__}: {error}")))

    def _emit(self, hosted: _Hosted, event: Event) -> None:
        hosted.lost = hosted.lost or isinstance(event, WorkerLost)
        self._events.put((hosted, event))

    def assign(self, worker: str, task: Task) -> None:
        if (hosted := self._hosted.get(worker)) is not None and not hosted.lost:
            hosted.inbox.put(task)

    def retire(self, worker: str) -> None:
        if (hosted := self._hosted.get(worker)) is not None:
            hosted.inbox.close()

    def kill(self, worker: str, failure: Failure) -> None:
        hosted = self._hosted.get(worker)
        if hosted is not None and not hosted.gone:
            self.retire(worker)  # a thread cannot be killed: it is asked to close, and ignored from now on
            self._emit(hosted, WorkerLost(worker, failure))

    def poll(self, seconds: float) -> Sequence[Event]:
        events: list[Event] = []
        try:
            while True:
                hosted, event = self._events.get(block=not events, timeout=seconds)
                if not hosted.gone:
                    hosted.gone = isinstance(event, WorkerLost)
                    events.append(event)
        except queue.Empty:
            return events

    def close(self) -> None:
        for worker, hosted in self._hosted.items():
            if not hosted.gone:
                hosted.gone = True
                self.retire(worker)
