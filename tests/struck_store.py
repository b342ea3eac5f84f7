"""A store under which processes die, freeze or meet a disk error at exact moments of their commits.

It is the real store; a commit only passes three points on its way, at each of which a strike may be due:

- BEFORE: nothing is written yet;
- DURING: the part lies there whole under its temporary name, and is about to be renamed (seen by Python's own audit of
  `os.rename`, so that the store's code is not touched);
- AFTER: the part is published, and nobody has been told.

Each strike happens once in a sweep, whatever process comes to it first: a file in the ledger says that it has.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.faults import children
from orchestrator.store import Store
from workers.messages import DrawRow, GradeRow


class Moment(StrEnum):
    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Victim(StrEnum):
    ITSELF = "itself"
    DRIVER = "driver"
    CHILD = "child"
    """A child of the process that commits: the grader's child, an engine's rank."""


class Deed(StrEnum):
    KILL = "kill"
    HANG = "hang"
    ERROR = "error"
    """The disk refuses: only where the victim is the process itself."""


@dataclass(frozen=True)
class Strike:
    """`deed` befalls `victim` at `moment` of the first commit to `table` that no earlier strike has claimed."""

    table: str
    moment: Moment
    victim: Victim = Victim.ITSELF
    deed: Deed = Deed.KILL

    @property
    def name(self) -> str:
        return f"{self.table}-{self.moment}-{self.victim}-{self.deed}"


def write_strikes(file: Path, strikes: Sequence[Strike]) -> None:
    file.write_text(json.dumps([asdict(strike) for strike in strikes]))


def read_strikes(file: Path) -> tuple[Strike, ...]:
    return tuple(
        Strike(one["table"], Moment(one["moment"]), Victim(one["victim"]), Deed(one["deed"]))
        for one in json.loads(file.read_text())
    )


def struck(ledger: Path) -> set[str]:
    """The names of the strikes that have happened."""
    return {file.stem for file in ledger.glob("*.strike")}


@dataclass
class StruckStore(Store):
    """See the module's docstring."""

    ledger: str = ""
    driver: int = 0
    strikes: tuple[Strike, ...] = ()

    @classmethod
    def over(cls, store: Store, ledger: str, driver: int, strikes: tuple[Strike, ...]) -> "StruckStore":
        plain = {field.name: getattr(store, field.name) for field in fields(store) if not field.name.startswith("_")}
        Path(ledger).mkdir(parents=True, exist_ok=True)
        return cls(**plain, ledger=ledger, driver=driver, strikes=strikes)

    def commit_draws(self, rows: Sequence[DrawRow]) -> str:
        with self._struck("draws"):
            return super().commit_draws(rows)

    def commit_grades(self, rows: Sequence[GradeRow]) -> str:
        with self._struck("grades"):
            return super().commit_grades(rows)

    def publish_patch(self, folder: Path, patch_id: str) -> None:
        with self._struck("patches"):
            super().publish_patch(folder, patch_id)

    @contextmanager
    def _struck(self, table: str) -> Iterator[None]:
        """Around one commit: the strike that it claims, if any, happens at its moment."""
        due = next((s for s in self.strikes if s.table == table and self._claim(s)), None)
        if due is None:
            yield
            return
        if due.moment is Moment.BEFORE:
            self._strike(due)
        _Renames.due = (lambda: self._strike(due)) if due.moment is Moment.DURING else None
        yield
        if due.moment is Moment.AFTER:
            self._strike(due)

    def _claim(self, strike: Strike) -> bool:
        try:
            Path(self.ledger, f"{strike.name}.strike").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _strike(self, strike: Strike) -> None:
        if strike.deed is Deed.ERROR:
            raise OSError(28, "No space left on device, as scripted")
        number = signal.SIGKILL if strike.deed is Deed.KILL else signal.SIGSTOP
        match strike.victim:
            case Victim.ITSELF:
                os.kill(os.getpid(), number)
            case Victim.DRIVER:
                os.kill(self.driver, number)
            case Victim.CHILD:
                os.kill(children(os.getpid())[0], number)


class _Renames:
    """What is to happen at this process's next rename of a part."""

    due: Any = None

    @classmethod
    def audit(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and cls.due is not None and str(arguments[0]).endswith(".tmp"):
            deed, cls.due = cls.due, None
            deed()


sys.addaudithook(_Renames.audit)
