"""Streams results into MLflow while a sweep runs, in a thread of its own: a slow server never holds up the sweep.

The thread is told which contexts have new grades, and writes their variants. What it cannot write is written by `sync`
at the end of a sweep that is done, or by the next run: the store has it all. While the thread lives nobody else writes.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.plan.resolved_grid import ResolvedGrid, ResolvedVariant
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Command, Event, Reported
from orchestrator.store.store import Store
from workers.messages import Graded

if TYPE_CHECKING:
    from orchestrator.results.tracking import Tracker

FINAL_SECONDS = 120.0
"""How long the end of a sweep that is done waits for the last writes."""

STOPPED_SECONDS = 2.0
"""How long a sweep that was stopped waits: whoever stops it may kill it 30 s later, and its workers hand in first."""


class TrackingThread:
    """An observer that hands graded variants to MLflow. Whoever leaves it without a word abandons what waits."""

    def __init__(self, store: Store, resolved: ResolvedGrid, say: Callable[[str], None]) -> None:
        self._store, self._survey, self._say = store, resolved, say
        self._queue: queue.SimpleQueue[ResolvedVariant | None] = queue.SimpleQueue()
        self._by_context = {d.context.context_id: v for v in resolved.variants for d in v.decodings}
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._tracker: Tracker | None = None
        self._ending = self._hurried = self._stopped = False
        self.failed: str | None = None

    def __enter__(self) -> "TrackingThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ending:
            self._hurried = True
            self._ends_within(STOPPED_SECONDS)

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        if isinstance(event, Reported) and isinstance(event.report, Graded):
            self._queue.put(self._by_context[event.report.context_id])

    def finish(self, seconds: float = FINAL_SECONDS) -> bool:
        """The sweep is done: wait for what is still to be written. Returns whether the thread has ended."""
        ended = self._ends_within(seconds)
        if not ended:
            self._say(f"MLflow is slow; {self._remedy()}")
        return ended

    def stop(self) -> None:
        """The sweep was stopped: write that, if it can be done at once, and no more."""
        self._hurried = self._stopped = True
        self._ends_within(STOPPED_SECONDS)
        self._say(f"MLflow may be behind; {self._remedy()}")

    def _ends_within(self, seconds: float) -> bool:
        self._ending = True
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _remedy(self) -> str:
        return f"`python -m orchestrator sync {self._survey.grid.source.name}` writes what is missing there"

    def _run(self) -> None:
        ended = False
        while not ended:
            wanted, ended = self._take()
            try:
                self._write(wanted)
            except Exception as error:  # a view: whatever its database throws, the sweep goes on
                if self.failed is None:
                    self._say(f"MLflow cannot be written ({str(error)[:200]}); the sweep goes on without it")
                self.failed = str(error)

    def _take(self) -> tuple[Iterable[ResolvedVariant], bool]:
        """What is waiting by now, each variant once, as soon as there is something; and whether that is all."""
        wanted: dict[str, ResolvedVariant] = {}
        while (item := self._queue.get()) is not None:
            wanted[item.patch_id] = item
            if self._queue.empty():
                return wanted.values(), False
        return wanted.values(), True

    def _write(self, wanted: Iterable[ResolvedVariant]) -> None:
        for variant in wanted:
            if self._hurried:
                break
            if self._tracker is None:
                from orchestrator.results.tracking import Tracker

                self._tracker = Tracker.open(self._store, self._survey)
                self._tracker.begin()
            self._tracker.write_variant(variant)
        if self._stopped and self._tracker is not None:
            self._tracker.end(complete=False)
