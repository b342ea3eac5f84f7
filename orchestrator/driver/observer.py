"""The interface between the driver and what watches a sweep."""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Command, Event


class Observer(Protocol):
    """A view that is shown every event: progress display, tracking. It must not fail the sweep."""

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None: ...
