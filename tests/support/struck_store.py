"""A store under which processes die, freeze or meet a disk error at exact moments of their commits.

It is the real store; a commit only passes three points on its way, at each of which a strike may be due:

- BEFORE: nothing is written yet;
- DURING: a file lies there whole under its temporary name, and is about to be renamed (Python's own audit of
  `os.rename` tells, so that the store's code is not touched);
- AFTER: the part is published, and nobody has been told.

A strike may also make the disk full or read-only. Then every process that has this store is told so by what looks like
its operating system, whenever it opens a file of the store to write or renames one, until somebody calls `relieve`.

Each strike happens once in a sweep, whatever process comes to it first: a file in the ledger says that it has.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.drill.faults import children
from orchestrator.store.store import Store
from workers.tables import DrawRow, GradeRow

REFUSING = "refusing"
"""The file in the ledger that holds the error which the disk gives, while it gives one."""


class Moment(StrEnum):
    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Victim(StrEnum):
    ITSELF = "itself"
    DRIVER = "driver"
    CHILD = "child"
    """A child of the process that commits: the grader's."""
    NODE = "node"
    """The raylet that the process that commits belongs to."""


class Deed(StrEnum):
    KILL = "kill"
    HANG = "hang"
    ERROR = "error"
    """Something raises what nobody foresaw, in the process that commits."""
    FULL = "full"
    READ_ONLY = "read-only"


REFUSALS = {Deed.FULL: errno.ENOSPC, Deed.READ_ONLY: errno.EROFS}


@dataclass(frozen=True)
class Strike:
    """`deed` befalls `victim` at `moment` of a commit to `table`, when that holds `at` rows (patches) or more.

    Of several that are due the first in the list comes first. A commit meets one of them, and a patch one in all.
    """

    table: str
    moment: Moment
    victim: Victim = Victim.ITSELF
    deed: Deed = Deed.KILL
    at: int = 0

    @property
    def name(self) -> str:
        return f"{self.table}-{self.moment}-{self.victim}-{self.deed}-{self.at}"


def write_strikes(file: Path, strikes: Sequence[Strike]) -> None:
    file.write_text(json.dumps([asdict(strike) for strike in strikes]))


def read_strikes(file: Path) -> tuple[Strike, ...]:
    return tuple(
        Strike(one["table"], Moment(one["moment"]), Victim(one["victim"]), Deed(one["deed"]), one["at"])
        for one in json.loads(file.read_text())
    )


def struck(ledger: Path) -> set[str]:
    """The names of the strikes that have happened."""
    return {file.name.removesuffix(".strike") for file in ledger.glob("*.strike")}


def relieve(ledger: Path) -> None:
    """Let the disk have room again, and be written."""
    Path(ledger, REFUSING).unlink(missing_ok=True)


def doom(ledger: str | Path, driver: int) -> bool:
    """Take the driver's only death, to deal it. False if somebody else has."""
    return _created(Path(ledger, f"{driver}.doomed"))


def _created(file: Path) -> bool:
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass
class StruckStore(Store):
    """See the module's docstring."""

    ledger: str = ""
    driver: int = 0
    strikes: tuple[Strike, ...] = ()

    @classmethod
    def over(cls, store: Store, ledger: str, driver: int, strikes: tuple[Strike, ...]) -> "StruckStore":
        """`store`, under strikes. `driver` is the pid of this run's driver."""
        Path(ledger).mkdir(parents=True, exist_ok=True)
        struck = cls(store.files, ledger=ledger, driver=driver, strikes=strikes)
        _Disk.watch(struck)
        return struck

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _Disk.watch(self)

    def commit_draws(self, rows: Sequence[DrawRow]) -> str:
        with self._struck("draws", len(rows)):
            return super().commit_draws(rows)

    def commit_grades(self, rows: Sequence[GradeRow]) -> str:
        with self._struck("grades", len(rows)):
            return super().commit_grades(rows)

    def publish_patch(self, folder: Path, patch_id: str) -> None:
        if not self._first_time(f"{patch_id}.seen"):  # a patch that is tried again waits longer each time
            super().publish_patch(folder, patch_id)
            return
        with self._struck("patches", 1):
            super().publish_patch(folder, patch_id)

    @contextmanager
    def _struck(self, table: str, rows: int) -> Iterator[None]:
        """Around one commit: the strike that it claims, if any, happens at its moment."""
        counter = Path(self.ledger, f"{table}.count")
        held = counter.stat().st_size if counter.exists() else 0
        due = next((s for s in self.strikes if s.table == table and s.at <= held and self._claim(s)), None)
        if due is not None and due.moment is Moment.BEFORE:
            self._strike(due)
        _Disk.due = None if due is None or due.moment is not Moment.DURING else lambda: self._strike(due)
        yield
        with counter.open("ab") as file:  # one byte per row: appended whole, whoever else appends
            file.write(b"." * rows)
        if due is not None and due.moment is Moment.AFTER:
            self._strike(due)

    def _claim(self, strike: Strike) -> bool:
        file = f"{strike.name}.strike"
        if strike.victim is Victim.DRIVER and (Path(self.ledger, file).exists() or not doom(self.ledger, self.driver)):
            return False  # a driver dies once, though its workers outlive it by a moment
        return self._first_time(file)

    def _first_time(self, name: str) -> bool:
        """Whether no process of this sweep has asked this before."""
        return _created(Path(self.ledger, name))

    def _strike(self, strike: Strike) -> None:
        if strike.deed is Deed.ERROR:
            raise RuntimeError(f"{strike.name}, as scripted")
        if strike.deed in REFUSALS:
            Path(self.ledger, REFUSING).write_text(str(int(REFUSALS[strike.deed])))
            return
        victims = {
            Victim.ITSELF: os.getpid(),
            Victim.DRIVER: self.driver,
            Victim.CHILD: next(iter(children(os.getpid())), 0),
            Victim.NODE: os.getppid(),
        }
        os.kill(victims[strike.victim], signal.SIGKILL if strike.deed is Deed.KILL else signal.SIGSTOP)


class _Disk:
    """What this process's operating system does with the files of a struck store."""

    due: Callable[[], None] | None = None
    """What is to happen at the next rename of a part."""
    root = ""
    refusing = Path()

    @classmethod
    def watch(cls, store: StruckStore) -> None:
        cls.root, cls.refusing = store.root + "/", Path(store.ledger, REFUSING)

    @classmethod
    def audit(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.mkdir") or not str(arguments[0]).startswith(cls.root or "\0"):
            return
        if event == "os.rename" and cls.due is not None and str(arguments[0]).endswith(".tmp"):
            deed, cls.due = cls.due, None
            deed()
        writes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and ".db" not in str(arguments[0]) and os.path.exists(cls.refusing):
            number = int(cls.refusing.read_text() or errno.ENOSPC)
            raise OSError(number, os.strerror(number), str(arguments[0]))


sys.addaudithook(_Disk.audit)
