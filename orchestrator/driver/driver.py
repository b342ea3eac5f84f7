"""The loop: event -> handle -> perform. The one place where clock, store, backend and views meet."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from orchestrator.cluster.backend import Backend
from orchestrator.console import say
from orchestrator.driver.observer import Observer
from orchestrator.driver.store_requests import StoreRequests
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.plan.plan import Plan
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Command,
    Event,
    FindMissing,
    Finish,
    Kill,
    RecordFailures,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
    StopRequested,
    Tick,
)
from orchestrator.store.lease import LeaseLost
from workers.messages import GradeTask, PruneTask, Shard
from workers.recipes import Recipe

POLL_SECONDS = 1.0


class Driver:
    """Runs a core on a backend until it finishes."""

    def __init__(
        self,
        core: Core,
        plan: Plan,
        backend: Backend,
        recipes: WorkerRecipes,
        observers: Sequence[Observer] = (),
        lease_lost: "SimpleQueue[str] | None" = None,
    ) -> None:
        """`lease_lost`: a reason that any thread puts into this queue ends the run at once with `LeaseLost`."""
        self._core, self._backend, self._recipes, self._observers = core, backend, recipes, list(observers)
        self._contexts = {owed.decoding.context.context_id: owed for owed in plan.contexts}
        self._lease_lost: SimpleQueue[str] = lease_lost or SimpleQueue()
        self._signalled: list[Event] = []
        self._has_gpus = backend.devices().gpus > 0
        self._requests = StoreRequests(recipes.store, self._contexts, recipes.runtime.store_seconds, say)

    def run(self) -> str:
        """Drive to the end; returns why it ended: "done", the reason of a stop, or what keeps it from going on.

        Raises LeaseLost, and leaves the workers running: the caller ends them by closing the backend.
        """
        with self._signals():
            pending: list[Event] = [Tick()]
            while self._core.finished is None:
                for event in pending:
                    now = time.monotonic()
                    commands: list[Command] = []
                    try:
                        commands += self._core.handle(event, now)
                        for command in commands:
                            self._perform(command)
                    finally:  # even if the event ends the run with an error: the event log must contain it
                        self._notify(event, commands, now)
                signalled, self._signalled = self._signalled, []
                if not self._lease_lost.empty():
                    raise LeaseLost(self._lease_lost.get())
                answers = self._requests.run(time.monotonic())
                news = self._backend.poll(0 if signalled or answers else POLL_SECONDS)
                pending = [*signalled, *answers, *news] or [Tick()]
            self._requests.finish()  # the last commands may have made requests
        return self._core.finished

    def _notify(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """A view must not fail the sweep: one that raises is reported and told nothing more."""
        for observer in list(self._observers):
            try:
                observer.observe(self._core, event, commands, now)
            except Exception as error:
                self._observers.remove(observer)
                say(f"{type(observer).__name__} stops showing this run ({type(error).__name__}: {str(error)[:200]})")

    def _perform(self, command: Command) -> None:
        match command:
            case StartWorker(worker, role, avoid=avoid):
                gpus = self._recipes.gpus(role) if self._has_gpus else 0
                self._backend.start(worker, self._recipe(command), gpus, avoid)
            case Assign(worker, ShardNumbers(task_id, context_id, numbers)):
                owed = self._contexts[context_id]
                self._backend.assign(worker, Shard(task_id, owed.decoding.context, owed.items(numbers)))
            case Assign(worker, PruneTask() | GradeTask() as task):
                self._backend.assign(worker, task)
            case FindMissing(numbers):
                self._requests.find_missing(numbers)
            case RecordFailures():
                self._requests.record(command)
            case Retire(worker):
                self._backend.retire(worker)
            case Kill(worker, failure):
                self._backend.kill(worker, failure)
            case Finish():
                pass

    def _recipe(self, command: StartWorker) -> Recipe:
        match command.role:
            case Role.PRUNE:
                return self._recipes.pruner()
            case Role.GRADE:
                return self._recipes.grader()
            case Role.ENGINE:
                assert command.shape is not None
                contexts = (work.context for work in self._core.state.contexts.values())
                context = next(context for context in contexts if context.shape == command.shape)
                return self._recipes.engine(command.shape, context.context_length)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGTERM or Ctrl-C ends the sweep in order; the second ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request_stop(number: int, frame: FrameType | None) -> None:
            if stopped:
                os._exit(128 + number)
            stopped.append(number)
            self._signalled.append(StopRequested(f"stopped by {signal.Signals(number).name}"))

        stopped: list[int] = []
        before = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
