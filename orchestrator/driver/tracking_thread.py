"""Streams results into MLflow while a sweep runs, in its own thread, so that a slow server never delays the sweep.

The thread writes the variants of contexts that have new grades. What it cannot write is written by `sync`, at the end
of a finished sweep or later: all of it is in the store. Nothing else writes while the thread lives.
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
"""How long a finished sweep waits for the last writes."""

STOPPED_SECONDS = 2.0
"""How long a stopped sweep waits: it may be killed 30 s after the signal, and its workers commit first."""


class TrackingThread:
    """An observer that writes graded variants to MLflow. Leaving the block without `finish` drops queued writes."""

    def __init__(self, store: Store, resolved: ResolvedGrid, say: Callable[[str], None]) -> None:
        self._store, self._resolved, self._say = store, resolved, say
        self._queue: queue.SimpleQueue[ResolvedVariant | None] = queue.SimpleQueue()
        self._by_context = {d.context.context_id: v for v in resolved.variants for d in v.decodings}
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._tracker: Tracker | None = None
        self._ending = self._dropping = self._stopped = False
        self.failed: str | None = None

    def __enter__(self) -> "TrackingThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ending:
            self._dropping = True
            self._end_within(STOPPED_SECONDS)

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        if isinstance(event, Reported) and isinstance(event.report, Graded):
            self._queue.put(self._by_context[event.report.context_id])

    def finish(self, seconds: float = FINAL_SECONDS) -> bool:
        """The sweep is done: wait for the queued writes. Returns whether the thread has ended."""
        ended = self._end_within(seconds)
        if not ended:
            self._say(f"MLflow is slow; {self._remedy()}")
        return ended

    def stop(self) -> None:
        """The sweep was stopped: drop queued writes, and mark the run as stopped if that is quick."""
        self._dropping = self._stopped = True
        self._end_within(STOPPED_SECONDS)
        self._say(f"MLflow may be behind; {self._remedy()}")

    def _end_within(self, seconds: float) -> bool:
        self._ending = True
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _remedy(self) -> str:
        return f"`{self._resolved.grid.command('sync')}` writes what is missing there"

    def _run(self) -> None:
        ended = False
        while not ended:
            variants, ended = self._take()
            try:
                self._write(variants)
            except Exception as error:  # a view: whatever its database throws, the sweep goes on
                if self.failed is None:
                    self._say(f"MLflow cannot be written ({str(error)[:200]}); the sweep goes on without it")
                self.failed = str(error)

    def _take(self) -> tuple[Iterable[ResolvedVariant], bool]:
        """Wait for queued variants; returns them, each once, and whether the queue has ended."""
        variants: dict[str, ResolvedVariant] = {}
        while (item := self._queue.get()) is not None:
            variants[item.patch_id] = item
            if self._queue.empty():
                return variants.values(), False
        return variants.values(), True

    def _write(self, variants: Iterable[ResolvedVariant]) -> None:
        for variant in variants:
            if self._dropping:
                break
            if self._tracker is None:
                from orchestrator.results.tracking import Tracker

                self._tracker = Tracker.open(self._store, self._resolved)
                self._tracker.begin()
            self._tracker.write_variant(variant)
        if self._stopped and self._tracker is not None:
            self._tracker.end(complete=False)
