"""Streams results into MLflow while a sweep runs, in a thread of its own: a slow server never holds up the sweep.

The thread is told which contexts have new grades, and writes their variants. What it cannot write is written by `sync`
at the end, or by the next run: the store has it all.
"""

import queue
import threading
from collections.abc import Callable, Sequence

from orchestrator.core import Core
from orchestrator.events import Command, Event, Reported
from orchestrator.store import Store
from orchestrator.survey import PlannedVariant, Survey
from workers.messages import Graded

FINAL_SECONDS = 120.0
"""How long the end of a sweep waits for the last writes."""


class TrackingThread:
    """An observer that hands graded variants to MLflow."""

    def __init__(self, store: Store, survey: Survey, say: Callable[[str], None]) -> None:
        self._store, self._survey, self._say = store, survey, say
        self._queue: queue.SimpleQueue[PlannedVariant | None] = queue.SimpleQueue()
        self._by_context = {d.context.context_id: v for v in survey.variants for d in v.decodings}
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)
        self.failed: str | None = None

    def __enter__(self) -> "TrackingThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join(FINAL_SECONDS)
        if self._thread.is_alive():
            self._say("MLflow is slow; what is missing there can be written later with `orchestrator sync`")

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        if isinstance(event, Reported) and isinstance(event.report, Graded):
            self._queue.put(self._by_context[event.report.context_id])

    def _write(self) -> None:
        from orchestrator.tracking import Tracker

        tracker: Tracker | None = None
        ended = False
        while not ended:
            wanted: dict[str, PlannedVariant] = {}
            item = self._queue.get()
            while True:  # whatever else is waiting by now is written in the same round, each variant once
                if item is None:
                    ended = True
                else:
                    wanted[item.patch_id] = item
                if self._queue.empty():
                    break
                item = self._queue.get()
            try:
                if tracker is None:
                    tracker = Tracker.open(self._store, self._survey)
                    tracker.begin()
                for variant in wanted.values():
                    tracker.write_variant(variant)
            except Exception as error:  # a view: whatever its database throws, the sweep goes on
                if self.failed is None:
                    self._say(f"MLflow cannot be written ({str(error)[:200]}); the sweep goes on without it")
                self.failed = str(error)
