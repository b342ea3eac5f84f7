"""A store that injects faults: processes die, freeze or meet a disk error at exact moments of their commits.

It is the real store; a fault may be due at three moments of a commit:

- BEFORE: nothing is written yet;
- DURING: a whole file lies there under its temporary name and is about to be renamed (seen by Python's audit of
  `os.rename`, so that the store's code is not touched);
- AFTER: the part is published, and its commit not reported yet.

A fault may also make the disk full or read-only. Then every process that uses this store gets that error, as if from
the operating system, when it opens a file of the store for writing or renames one, until `repair_disk` is called.

Each fault happens once in a sweep, in whichever process comes to it first: a file in the ledger records it.
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
from workers.rows.tables import DrawRow, GradeRow

REFUSING = "refusing"
"""The ledger's file with the number of the disk's current error."""


class Moment(StrEnum):
    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Target(StrEnum):
    ITSELF = "itself"
    DRIVER = "driver"
    CHILD = "child"
    """A child of the process that commits: the grader's."""
    NODE = "node"
    """The raylet of the process that commits."""


class Action(StrEnum):
    KILL = "kill"
    HANG = "hang"
    ERROR = "error"
    """Something raises what nobody foresaw, in the process that commits."""
    FULL = "full"
    READ_ONLY = "read-only"


REFUSALS = {Action.FULL: errno.ENOSPC, Action.READ_ONLY: errno.EROFS}


@dataclass(frozen=True)
class StoreFault:
    """`action` happens to `target` at `moment` of a commit to `table` once that has `at` rows (or patches).

    A commit meets one fault, the first in the list that is due; a patch meets one in all.
    """

    table: str
    moment: Moment
    target: Target = Target.ITSELF
    action: Action = Action.KILL
    at: int = 0

    @property
    def name(self) -> str:
        return f"{self.table}-{self.moment}-{self.target}-{self.action}-{self.at}"


def write_faults(file: Path, faults: Sequence[StoreFault]) -> None:
    file.write_text(json.dumps([asdict(fault) for fault in faults]))


def read_faults(file: Path) -> tuple[StoreFault, ...]:
    return tuple(
        StoreFault(one["table"], Moment(one["moment"]), Target(one["target"]), Action(one["action"]), one["at"])
        for one in json.loads(file.read_text())
    )


def happened(ledger: Path) -> set[str]:
    """The names of the faults that have happened."""
    return {file.name.removesuffix(".fault") for file in ledger.glob("*.fault")}


def repair_disk(ledger: Path) -> None:
    """End the disk's errors."""
    Path(ledger, REFUSING).unlink(missing_ok=True)


def claim_driver_kill(ledger: str | Path, driver: int) -> bool:
    """Claim the one kill that a driver process gets. False if it is claimed already."""
    return _created(Path(ledger, f"{driver}.killed"))


def _created(file: Path) -> bool:
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass
class FaultyStore(Store):
    """See the module's docstring."""

    ledger: str = ""
    driver: int = 0
    faults: tuple[StoreFault, ...] = ()

    @classmethod
    def over(cls, store: Store, ledger: str, driver: int, faults: tuple[StoreFault, ...]) -> "FaultyStore":
        """`store` with faults. `driver` is the pid of this run's driver."""
        Path(ledger).mkdir(parents=True, exist_ok=True)
        happened = cls(store.files, ledger=ledger, driver=driver, faults=faults)
        _Disk.watch(happened)
        return happened

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _Disk.watch(self)

    def commit_draws(self, rows: Sequence[DrawRow]) -> str:
        with self._with_faults("draws", len(rows)):
            return super().commit_draws(rows)

    def commit_grades(self, rows: Sequence[GradeRow]) -> str:
        with self._with_faults("grades", len(rows)):
            return super().commit_grades(rows)

    def publish_patch(self, folder: Path, patch_id: str) -> None:
        if not self._first_time(f"{patch_id}.seen"):  # a patch that is tried again waits longer each time
            super().publish_patch(folder, patch_id)
            return
        with self._with_faults("patches", 1):
            super().publish_patch(folder, patch_id)

    @contextmanager
    def _with_faults(self, table: str, rows: int) -> Iterator[None]:
        """One commit, with the fault that it claims, if any."""
        counter = Path(self.ledger, f"{table}.count")
        held = counter.stat().st_size if counter.exists() else 0
        due = next((s for s in self.faults if s.table == table and s.at <= held and self._claims(s)), None)
        if due is not None and due.moment is Moment.BEFORE:
            self._inject(due)
        _Disk.due = None if due is None or due.moment is not Moment.DURING else lambda: self._inject(due)
        yield
        with counter.open("ab") as file:  # one byte per row: appended whole, whoever else appends
            file.write(b"." * rows)
        if due is not None and due.moment is Moment.AFTER:
            self._inject(due)

    def _claims(self, fault: StoreFault) -> bool:
        file = f"{fault.name}.fault"
        if fault.target is Target.DRIVER and (
            Path(self.ledger, file).exists() or not claim_driver_kill(self.ledger, self.driver)
        ):
            return False  # a driver dies once, though its workers outlive it by a moment
        return self._first_time(file)

    def _first_time(self, name: str) -> bool:
        """Whether no process of this sweep has called this with `name` before."""
        return _created(Path(self.ledger, name))

    def _inject(self, fault: StoreFault) -> None:
        if fault.action is Action.ERROR:
            raise RuntimeError(f"{fault.name}, as scripted")
        if fault.action in REFUSALS:
            Path(self.ledger, REFUSING).write_text(str(int(REFUSALS[fault.action])))
            return
        pids = {
            Target.ITSELF: os.getpid(),
            Target.DRIVER: self.driver,
            Target.CHILD: next(iter(children(os.getpid())), 0),
            Target.NODE: os.getppid(),
        }
        os.kill(pids[fault.target], signal.SIGKILL if fault.action is Action.KILL else signal.SIGSTOP)


class _Disk:
    """This process's operating system, as far as the files of a faulty store go."""

    due: Callable[[], None] | None = None
    """To be called at the next rename of a part."""
    root = ""
    refusing = Path()

    @classmethod
    def watch(cls, store: FaultyStore) -> None:
        cls.root, cls.refusing = store.root + "/", Path(store.ledger, REFUSING)

    @classmethod
    def audit(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.mkdir") or not str(arguments[0]).startswith(cls.root or "\0"):
            return
        if event == "os.rename" and cls.due is not None and str(arguments[0]).endswith(".tmp"):
            action, cls.due = cls.due, None
            action()
        writes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and ".db" not in str(arguments[0]) and os.path.exists(cls.refusing):
            number = int(cls.refusing.read_text() or errno.ENOSPC)
            raise OSError(number, os.strerror(number), str(arguments[0]))


sys.addaudithook(_Disk.audit)
