"""Replays an event log: feeds the logged events to a new core, one by one, and compares what it decides.

Reading a log is separate from stepping through it: `steps` is pure.
"""

import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.grid.errors import InputError
from orchestrator.scheduler.event_log import GZIP, LogEnd, LoggedEvent, decode_start, read_header, read_line
from orchestrator.scheduler.events import Command, Event, StartWorker
from orchestrator.scheduler.state import SweepState
from orchestrator.store.files import Files

CHUNK = 2**16


@dataclass(frozen=True)
class ReplayStep:
    """One event, and what the replayed core made of it.

    The two states are the cores' own: they change as soon as the next step is asked for.
    """

    number: int
    """The first event is 1."""
    now: float
    seconds: float
    """Since the first event."""
    event: Event
    commands: tuple[Command, ...]
    """What the replayed core decided."""
    logged: tuple[Command, ...]
    """What the core of the sweep decided."""
    before: SweepState
    after: SweepState
    error: str | None = None
    """What the replayed core raised, if anything: then this is the last step, and the sweep's own core most likely
    raised it, too."""

    @property
    def same(self) -> bool:
        """Whether the replayed core decided what the sweep's did."""
        return self.error is None and self.commands == self.logged


class EventLogReader:
    """A log that is read while it is iterated over."""

    def __init__(self, content: bytes) -> None:
        """Raises ValueError if it is no event log of this version of the project."""
        self._lines = _lines(content)
        first = next(self._lines, None)
        if first is None:
            raise ValueError("it is no gzip file, or breaks off in its first line")
        self.header: Mapping[str, Any] = read_header(first)
        self.end: LogEnd | None = None
        """The last line, once it is read; a log that breaks off has none."""

    def __iter__(self) -> Iterator[LoggedEvent]:
        for number, text in enumerate(self._lines, 1):
            try:
                line = read_line(text)
            except ValueError as error:
                raise InputError(f"event {number} of the log cannot be read: {error}") from error
            if isinstance(line, LogEnd):
                self.end = line
                return
            yield line


class Replay:
    """The steps of a log, to be iterated over once, and a summary of them afterwards."""

    def __init__(self, log: EventLogReader) -> None:
        self._log = log
        self.events = 0
        """How many have been replayed."""
        self.different: list[int] = []
        """The events at which the replayed core failed, or did not decide what the log says."""
        self.workers: set[str] = set()
        """The workers that were started."""
        self.complete = False
        """Whether the log was read to its end."""

    def __iter__(self) -> Iterator[ReplayStep]:
        for step in steps(self._log.header["start"], self._log):
            self.events += 1
            if not step.same:
                self.different.append(step.number)
            self.workers.update(command.worker for command in step.commands if isinstance(command, StartWorker))
            yield step
        self.complete = True

    def summary(self) -> Iterator[str]:
        """What was replayed, and whether the decisions were the same."""
        header, end = self._log.header, self._log.end
        sweep = f"{header['sweep']}, begun {header['started']} by version {header['project']}"
        yield f"{sweep}: {self.events:,} events replayed"
        if self.different:
            others = f", and {len(self.different) - 1} later ones" if len(self.different) > 1 else ""
            yield f"the replayed core did not decide what the log says at event {self.different[0]}{others}"
        if end is not None:
            if end.logged < end.events:
                yield f"the log was full then: the last {end.events - end.logged:,} events are not in it"
            yield f"the sweep ended: {end.reason}"
        elif self.complete:
            yield "the log breaks off there: the driver was killed, or the file is not whole"


def open_log(address: str) -> EventLogReader:
    """The log at a local path or an address on object storage. Raises InputError if there is none that can be read."""
    path, mark, options = address.partition("?")
    folder, _, name = path.rpartition("/")
    content = Files.open((folder or ("/" if path.startswith("/") else ".")) + mark + options).read(name)
    if content is None:
        raise InputError(f"{address}: there is no such file; a sweep says where its event log is when it ends")
    try:
        return EventLogReader(content)
    except ValueError as error:
        raise InputError(f"{address} cannot be replayed: {error}") from error


def steps(start: Mapping[str, Any], events: Iterable[LoggedEvent]) -> Iterator[ReplayStep]:
    """Step through `events` with a core that begins in the state `start`.

    A second core stays one event behind, so that each step can be explained by the state before it.
    """
    before, after = decode_start(start), decode_start(start)
    began: float | None = None
    for number, one in enumerate(events, 1):
        began = one.now if began is None else began
        seconds = one.now - began
        try:
            commands = tuple(after.handle(one.event, one.now))
        except Exception as error:
            raised = traceback.extract_tb(error.__traceback__)[-1]
            cause = f"{type(error).__name__}: {error} ({raised.filename}:{raised.lineno})"
            yield ReplayStep(number, one.now, seconds, one.event, (), one.commands, before.state, after.state, cause)
            return
        yield ReplayStep(number, one.now, seconds, one.event, commands, one.commands, before.state, after.state)
        before.handle(one.event, one.now)


def _lines(content: bytes) -> Iterator[bytes]:
    """The whole lines of a gzip file, as far as it can be read."""
    unzip, rest = zlib.decompressobj(GZIP), b""
    for place in range(0, len(content), CHUNK):
        try:
            rest += unzip.decompress(content[place : place + CHUNK])
        except zlib.error:
            break
        *whole, rest = rest.split(b"\n")
        yield from whole
