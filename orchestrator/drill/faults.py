"""Strikes at a sweep from outside: runs the sweep's command, reads what it says, and kills the processes it names.

The sweep is not changed for it. Workers are known from its own lines ("engine-2 is ready on HOST, pid N"), how far it
has come from what its store holds. A strike falls when so much is committed and a process of its kind is up, so that
the moment is set by events and not by time; a driver that was killed is run again by the same command.
"""

import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random

from orchestrator.store.store import Store

HEAR_SECONDS = 0.2
AGAIN = 3
"""A run that ends incomplete by itself (a grader's child died over an answer, say) is repeated so often."""


class Victim(StrEnum):
    """What can be struck."""

    DRIVER = "driver"
    ENGINE = "engine"
    RANK = "engine's child"
    PRUNER = "prune"
    GRADER = "grade"
    GRADER_CHILD = "grader's child"


PARENT = {Victim.RANK: Victim.ENGINE, Victim.GRADER_CHILD: Victim.GRADER}
"""A child is found through the worker that it belongs to."""


@dataclass(frozen=True)
class StoreCounts:
    """What a store holds."""

    draws: int = 0
    grades: int = 0
    patches: int = 0

    @property
    def total(self) -> int:
        return self.draws + self.grades + self.patches

    def __str__(self) -> str:
        return f"{self.patches} patches, {self.draws} draws and {self.grades} grades"


@dataclass(frozen=True)
class PlannedKill:
    """Kill a process of `kind` once the store holds `at` things."""

    kind: Victim
    at: int


@dataclass(frozen=True)
class Announced:
    """A worker that the sweep has said is ready."""

    name: str
    host: str
    pid: int


@dataclass(frozen=True)
class DeliveredKill:
    """A strike that fell."""

    strike: PlannedKill
    process: str
    progress: StoreCounts
    """What was committed when it fell."""


@dataclass(frozen=True)
class KilledRun:
    """A sweep that was struck until it was complete, or would not be."""

    struck: tuple[DeliveredKill, ...]
    undelivered: tuple[PlannedKill, ...]
    """Strikes whose moment or kind of process never came."""
    runs: int
    status: int
    """The last run's exit status."""


def plan_kills(seed: int, kills: int, whole: StoreCounts, ranks: bool = False) -> tuple[PlannedKill, ...]:
    """`kills` strikes over a sweep that ends with `whole`, in order: each kind in turn, at random moments. Pure.

    Pruning is over early, so its worker is struck while patches are still owed.
    """
    random = Random(seed)
    kinds = [kind for kind in Victim if ranks or kind is not Victim.RANK]
    random.shuffle(kinds)
    chosen = [kinds[number % len(kinds)] for number in range(kills)]
    strikes = [
        PlannedKill(kind, random.randrange(max(1, whole.patches if kind is Victim.PRUNER else whole.total * 9 // 10)))
        for kind in chosen
    ]
    return tuple(sorted(strikes, key=lambda strike: strike.at))


def count_store(store: Store) -> StoreCounts:
    """Count what `store` holds."""
    rows = {
        table: sum(store.read(table, context, ["seed"]).num_rows for context in store.contexts(table))
        for table in ("draws", "grades")
    }
    return StoreCounts(rows["draws"], rows["grades"], len(store.patch_ids()))


class SweepProcess:
    """One run of the sweep's command. What it says goes to `log`, and comes out of `hear`."""

    READY = re.compile(r"(\S+) is ready on (\S+), pid (\d+)")
    LOST = re.compile(r"(\S+) lost: ")

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.workers: dict[str, Announced] = {}
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._log = log
        with log.with_suffix(".out").open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
            )
        self._reader = threading.Thread(target=self._read, daemon=True, name="drill-reader")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self._log.open("a", encoding="utf-8") as log:
            for line in self.process.stderr:
                log.write(line)
                log.flush()
                self._lines.put(line)

    def hear(self, seconds: float) -> str | None:
        """The next line, or None when none comes in time; learns which workers are up."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return None
        if (ready := self.READY.search(line)) is not None:
            self.workers[ready[1]] = Announced(ready[1], ready[2], int(ready[3]))
        elif (lost := self.LOST.search(line)) is not None:
            self.workers.pop(lost[1], None)
        return line

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """SIGKILL to the driver alone: what it started must find its own end."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the run in order if it still goes on: for a drill that is itself interrupted."""
        if self.status is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def run_under_kills(command: Sequence[str], store: Store, strikes: Sequence[PlannedKill], log: Path) -> KilledRun:
    """Run `command` until it ends complete, striking on the way; a killed driver is run again."""
    pending, struck, runs, again = list(strikes), [], 0, 0
    while True:
        runs += 1
        driven = SweepProcess(command, log)
        try:
            for one in deliver_kills(driven, store, pending):
                struck.append(one)
        finally:
            driven.stop()
        status = driven.process.returncode
        if any(one.strike.kind is Victim.DRIVER for one in struck[-1:]) and status == -signal.SIGKILL:
            continue
        again += 1
        if status in (0, 2) or again > AGAIN:
            return KilledRun(tuple(struck), tuple(pending), runs, status)


def deliver_kills(driven: SweepProcess, store: Store, pending: list[PlannedKill]) -> Iterator[DeliveredKill]:
    """Deal the strikes of `pending` that fall due during one run, removing each."""
    progress, looked, cost = count_store(store), time.monotonic(), 0.0
    while driven.status is None:
        driven.hear(HEAR_SECONDS)
        now = time.monotonic()
        if now - looked < max(HEAR_SECONDS, 5 * cost):  # looking must not become the load
            continue
        progress, looked = count_store(store), time.monotonic()
        cost = looked - now
        for strike in [strike for strike in pending if strike.at <= progress.total]:
            if (process := _strike(driven, strike.kind)) is not None:
                pending.remove(strike)
                yield DeliveredKill(strike, process, progress)
                if strike.kind is Victim.DRIVER:
                    return
                break  # one at a time, and then look again


def _strike(driven: SweepProcess, kind: Victim) -> str | None:
    """Kill a process of `kind`; returns which, or None if none is up."""
    if kind is Victim.DRIVER:
        driven.kill()
        return f"driver, pid {driven.process.pid}"
    role = PARENT.get(kind, kind)
    for worker in list(driven.workers.values()):
        if worker.name.partition("-")[0] != role:
            continue
        pid = kill_on(worker.host, worker.pid, kind in PARENT)
        if pid is not None:
            whose = f"child {pid} of " if kind in PARENT else ""
            return f"{whose}{worker.name}, pid {worker.pid} on {worker.host}"
        if kind not in PARENT:
            del driven.workers[worker.name]  # it has ended without a word, as a retired worker does
    return None


def kill_on(host: str, pid: int, child: bool = False) -> int | None:
    """`kill_here` on whatever machine `host` is."""
    if host == socket.gethostname():
        return kill_here(pid, child)
    from orchestrator.cluster.ray_backend import run_on_host

    return run_on_host(host, kill_here, pid, child)


def kill_here(pid: int, child: bool = False) -> int | None:
    """SIGKILL to one of Ray's workers, or to a child of it. Returns the pid that was killed.

    None if there is no such process: a pid that now belongs to somebody else is left alone.
    """
    if not _is_ray_worker(pid):
        return None
    victims = children(pid) if child else [pid]
    if not victims:
        return None
    try:
        os.kill(victims[-1], signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victims[-1]


def _is_ray_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that live, oldest first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:  # it ended while we looked
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(entry.parent.name))
    return sorted(found)
