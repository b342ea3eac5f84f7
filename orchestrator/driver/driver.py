"""The loop: event -> handle -> perform. The one place where clock, store, backend and views meet."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from orchestrator.cluster.backend import Backend
from orchestrator.console import say
from orchestrator.driver.observer import Observer
from orchestrator.driver.store_requests import StoreRequests
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
from orchestrator.store.lease import Displaced
from orchestrator.store.store import Store
from workers.engines.engine import EngineSettings
from workers.messages import GradeTask, PruneTask, Shard
from workers.recipes import EngineRecipe, GradeRecipe, PruneRecipe, Recipe, StartEngine, start_vllm

POLL_SECONDS = 1.0


class Driver:
    """Runs a core on a backend until it finishes."""

    def __init__(
        self,
        core: Core,
        plan: Plan,
        backend: Backend,
        store: Store,
        scratch: Path,
        observers: Sequence[Observer] = (),
        start_engine: StartEngine = start_vllm,
        displaced: "SimpleQueue[str] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`displaced`: from any thread, a reason put in there ends the run at once, with `Displaced`.

        `clock` gives the time that patience is measured by: in seconds, from any moment on, and never set.
        """
        self._core, self._backend, self._store = core, backend, store
        self._runtime = plan.resolved.grid.runtime
        self._contexts = {owed.decoding.context.context_id: owed for owed in plan.contexts}
        self._scratch, self._observers, self._start_engine, self._clock = scratch, observers, start_engine, clock
        self._displaced: SimpleQueue[str] = displaced or SimpleQueue()
        self._asked: list[Event] = []
        self._gpus = backend.devices().gpus
        self._errands = StoreRequests(store, self._contexts, self._runtime.store_seconds, say)

    def run(self) -> str:
        """Drive to the end; returns why it ended: "done", a stop's reason, or what keeps it from going on.

        Raises Displaced; the workers are then still to be let go, by closing the backend.
        """
        with self._signals():
            pending: list[Event] = [Tick()]
            while self._core.finished is None:
                for event in pending:
                    now = self._clock()
                    commands: list[Command] = []
                    try:
                        commands += self._core.handle(event, now)
                        for command in commands:
                            self._perform(command, now)
                    finally:  # of an event that ends the run with an error, too: the event log is to hold it
                        for observer in self._observers:
                            observer.observe(self._core, event, commands, now)
                asked, self._asked = self._asked, []
                if not self._displaced.empty():
                    raise Displaced(self._displaced.get())
                done = self._errands.run(self._clock())
                pending = [*asked, *done, *self._backend.poll(0 if asked or done else POLL_SECONDS)] or [Tick()]
            self._errands.finish()  # what the store refused just now
        return self._core.finished

    def _perform(self, command: Command, now: float) -> None:
        match command:
            case StartWorker(worker, role):
                gpus = 0 if role is Role.GRADE or not self._gpus else self._gpus_for(role)
                self._backend.start(worker, self._recipe(command), gpus)
            case Assign(worker, ShardNumbers(task_id, context_id, numbers)):
                owed = self._contexts[context_id]
                self._backend.assign(worker, Shard(task_id, owed.decoding.context, owed.items(numbers)))
            case Assign(worker, PruneTask() | GradeTask() as task):
                self._backend.assign(worker, task)
            case FindMissing(wanted):
                self._errands.recount(wanted)
            case RecordFailures():
                self._errands.record(command)
            case Retire(worker):
                self._backend.retire(worker)
            case Kill(worker, failure):
                self._backend.discard(worker, failure)
            case Finish():
                pass

    def _gpus_for(self, role: Role) -> int:
        return self._runtime.tensor_parallel if role is Role.ENGINE else 1

    def _recipe(self, command: StartWorker) -> Recipe:
        runtime, cache = self._runtime, str(self._scratch / "patches")
        if command.role is Role.PRUNE:
            return PruneRecipe(self._store, str(self._scratch / "pruning"), runtime.store_seconds)
        if command.role is Role.GRADE:
            return GradeRecipe(
                self._store, runtime.grader, runtime.grader_processes, runtime.grader_seconds, runtime.store_seconds
            )
        assert command.shape is not None
        contexts = (work.context for work in self._core.state.contexts.values())
        context = next(context for context in contexts if context.shape == command.shape)
        settings = EngineSettings(
            dtype=command.shape.dtype,
            context_length=context.context_length,
            max_sequences=runtime.max_sequences,
            tensor_parallel=runtime.tensor_parallel,
            cpu_cache_mib=runtime.cpu_cache_mib,
            gpu_memory_utilization=runtime.gpu_memory_utilization,
        )
        return EngineRecipe(
            command.shape,
            self._store,
            cache,
            settings,
            runtime.in_flight,
            runtime.commit_seconds,
            runtime.store_seconds,
            self._start_engine,
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGTERM or Ctrl-C ends the sweep in order; the second ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if any(isinstance(event, StopRequested) for event in self._asked) or stopped:
                os._exit(128 + number)
            stopped.append(number)
            self._asked.append(StopRequested(f"stopped by {signal.Signals(number).name}"))

        stopped: list[int] = []
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
