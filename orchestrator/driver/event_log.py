"""Keeps the events of a run, and writes them into the store if the run ends abnormally or the grid asks for it.

While a sweep runs they go into a gzip file in the temporary folder, so that memory stays small. The file is deleted
when a sweep is done, unless `runtime.event_log` is set. A driver that is killed outright (`kill -9`, out of memory)
leaves `prunesweep-*.events.jsonl.gz` there for a week, which can be replayed up to its last few seconds.

The log is bounded by `LARGEST_LOG`, two to four million events. Beyond that it keeps the beginning and counts the rest:
a replay needs every event from the first one on, because the core's state cannot be written down in between.
"""

import math
import os
import shlex
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.event_log import GZIP, LogEnd, encode_start, end_line, event_line, header_line
from orchestrator.scheduler.events import Command, Event
from orchestrator.store.store import Store

LARGEST_LOG = 64 * 2**20
"""Bytes, compressed: 15 to 30 per event."""

PREFIX, SUFFIX = "prunesweep-", ".events.jsonl.gz"
ABANDONED_SECONDS = 7 * 86_400.0
"""A log that a killed driver left is removed by a later run when nothing has been written to it for this long."""
FLUSH_SECONDS = 5.0
FLUSH_EVENTS = 1000


class EventLogWriter:
    """An observer that logs the core's events and commands. If the log cannot be written, it says so and stops."""

    def __init__(self, sweep: str, say: Callable[[str], None], largest: int = LARGEST_LOG) -> None:
        self._sweep, self._say, self._largest = sweep, say, largest
        self.core: Core | None = None
        self.started = time.gmtime()
        self.file: Path | None = None
        """The log so far, in the temporary folder. None before `begin`, and after logging has stopped on an error."""
        self._gzip = zlib.compressobj(level=1, wbits=GZIP)
        self._lines: list[bytes] = []
        self._flushed = -math.inf
        self._size = self._events = self._logged = 0

    def begin(self, core: Core) -> None:
        """Write the state that `core` starts from. Call it before the core handles its first event."""
        self.core = core
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", self.started)
        about = {"sweep": self._sweep, "project": _project_version(), "started": began}
        try:
            _remove_abandoned()
            handle, name = tempfile.mkstemp(SUFFIX, PREFIX)
            os.close(handle)
            self.file = Path(name)
            self._lines.append(header_line(encode_start(core), about))
            self._flush()
        except Exception as error:
            self._give_up(error)

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        self._events += 1
        if self.file is None or self._size >= self._largest:
            return
        try:
            self._lines.append(event_line(now, event, commands))
            self._logged += 1
            if len(self._lines) >= FLUSH_EVENTS or now - self._flushed >= FLUSH_SECONDS:
                self._flush()
                self._flushed = now
        except Exception as error:
            self._give_up(error)

    def end(self, reason: str) -> Path | None:
        """Write the last line. Returns the file, or None if there is none."""
        if self.file is not None:
            try:
                self._lines.append(end_line(LogEnd(reason, self._events, self._logged)))
                self._flush(zlib.Z_FINISH)
            except Exception as error:
                self._give_up(error)
        return self.file

    def discard(self) -> None:
        """Remove what was written."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink()
        self.file = None

    def _flush(self, mode: int = zlib.Z_SYNC_FLUSH) -> None:
        assert self.file is not None
        self._lines.append(b"")  # the last line, too, ends with a newline
        content = self._gzip.compress(b"\n".join(self._lines)) + self._gzip.flush(mode)
        with self.file.open("ab") as file:
            file.write(content)
        self._lines.clear()
        self._size += len(content)

    def _give_up(self, error: Exception) -> None:
        """A view must not fail the sweep, whatever is wrong with it."""
        self._say(f"{self._sweep}: there will be no event log ({type(error).__name__}: {str(error)[:200]})")
        self.discard()


@contextmanager
def event_log(store: Store, sweep: str, always: bool, say: Callable[[str], None]) -> Iterator[EventLogWriter]:
    """A log of one run: `begin` it with the run's core, and let it observe.

    It goes to `logs/` in the store, which nothing else reads, if the core did not finish with "done" or an exception
    leaves the block, and with `always` in any case. If the store refuses it, it stays in the temporary folder.
    """
    log = EventLogWriter(sweep, say)
    try:
        yield log
    except BaseException as error:
        _keep(log, store, sweep, f"{type(error).__name__}: {error}", say)
        raise
    reason = log.core.finished if log.core is not None else None
    if always or reason != "done":
        _keep(log, store, sweep, reason or "the driver stopped before the core had finished", say)
    else:
        log.discard()


def _keep(log: EventLogWriter, store: Store, sweep: str, reason: str, say: Callable[[str], None]) -> None:
    file = log.end(reason)
    if file is None:
        return
    path = f"logs/{sweep}-{time.strftime('%Y%m%dT%H%M%SZ', log.started)}{SUFFIX}"
    hint = f"{sweep}: to see what was decided and why: python -m orchestrator replay"
    try:
        store.files.publish(path, file.read_bytes())
    except Exception as error:  # the store may be why the sweep ended
        say(f"{hint} {file} (it could not be put into the store: {str(error)[:200]})")
        return
    log.discard()
    address, mark, options = store.uri.partition("?")
    say(f"{hint} {shlex.quote(f'{address}/{path}{mark}{options}')}")


def _remove_abandoned() -> None:
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # another user's, or another run removes it, too
            if file.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                file.unlink()


def _project_version() -> str:
    try:
        return version("prunesweep")
    except PackageNotFoundError:  # run from a folder of sources
        return "unknown"
