"""Kills a sweep's processes from outside: runs the sweep's command, reads its log lines and its store.

The sweep itself is not changed. Workers are known from its log lines ("engine-2 is ready on HOST, pid N"), progress
from what is stored. A kill is delivered once enough is stored and a process of its kind is up, so its moment depends on
events and not on time. A killed driver is run again by the same command.
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

LINE_SECONDS = 0.2
"""How long to wait for a log line before looking at the store again."""
REPEATS = 3
"""How often a run is repeated that ends incomplete by itself (a grader's child died over an answer, say)."""


class ProcessKind(StrEnum):
    """What can be killed. The kinds of workers are spelled as their names begin."""

    DRIVER = "driver"
    ENGINE = "engine"
    RANK = "engine's child"
    PRUNER = "prune"
    GRADER = "grade"
    GRADER_CHILD = "grader's child"


PARENT = {ProcessKind.RANK: ProcessKind.ENGINE, ProcessKind.GRADER_CHILD: ProcessKind.GRADER}
"""A child is found through its worker."""


@dataclass(frozen=True)
class StoreCounts:
    """How much is stored."""

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
    """Kill a process of `kind` once `at` draws, grades and patches are stored."""

    kind: ProcessKind
    at: int


@dataclass(frozen=True)
class ReadyWorker:
    """A worker that the sweep has reported as ready."""

    name: str
    host: str
    pid: int


@dataclass(frozen=True)
class DeliveredKill:
    """A kill that has happened."""

    planned: PlannedKill
    process: str
    stored: StoreCounts
    """What was stored by then."""


@dataclass(frozen=True)
class KilledRun:
    """A sweep that was run under kills until it was complete, or ended incomplete too often."""

    delivered: tuple[DeliveredKill, ...]
    undelivered: tuple[PlannedKill, ...]
    """Kills for which there never was enough stored, or a process of their kind."""
    runs: int
    """How often the command was run."""
    status: int
    """The exit status of the last run."""


def plan_kills(seed: int, kills: int, whole: StoreCounts, ranks: bool = False) -> tuple[PlannedKill, ...]:
    """`kills` kills at random moments of a sweep that ends with `whole`: all kinds in turn, sorted by moment. Pure.

    Pruning ends early, so pruners are killed before the last patch is stored.
    """
    random = Random(seed)
    kinds = [kind for kind in ProcessKind if ranks or kind is not ProcessKind.RANK]
    random.shuffle(kinds)
    chosen = [kinds[number % len(kinds)] for number in range(kills)]
    ends = [whole.patches if kind is ProcessKind.PRUNER else whole.total * 9 // 10 for kind in chosen]
    planned = [PlannedKill(kind, random.randrange(max(1, end))) for kind, end in zip(chosen, ends, strict=True)]
    return tuple(sorted(planned, key=lambda kill: kill.at))


def count_store(store: Store) -> StoreCounts:
    """Count the rows and patches of `store`."""
    rows = {
        table: sum(store.read(table, context, ["seed"]).num_rows for context in store.contexts(table))
        for table in ("draws", "grades")
    }
    return StoreCounts(rows["draws"], rows["grades"], len(store.patch_ids()))


class SweepProcess:
    """One run of the sweep's command. Its standard error is written to `log`, and read by `next_line`."""

    READY = re.compile(r"(\S+) is ready on (\S+), pid (\d+)")
    LOST = re.compile(r"(\S+) lost: ")

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.workers: dict[str, ReadyWorker] = {}
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

    def next_line(self, seconds: float) -> str | None:
        """The next log line, or None if none comes in time. Keeps `workers` up to date."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return None
        if (ready := self.READY.search(line)) is not None:
            self.workers[ready[1]] = ReadyWorker(ready[1], ready[2], int(ready[3]))
        elif (lost := self.LOST.search(line)) is not None:
            self.workers.pop(lost[1], None)
        return line

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """SIGKILL the driver alone: its workers must notice and exit by themselves."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the run in order if it is still running, as when the drill itself is interrupted."""
        if self.status is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def run_under_kills(command: Sequence[str], store: Store, kills: Sequence[PlannedKill], log: Path) -> KilledRun:
    """Run `command` until it ends complete, killing its processes as planned; a killed driver is run again."""
    pending, delivered, runs, repeats = list(kills), [], 0, 0
    while True:
        runs += 1
        sweep = SweepProcess(command, log)
        try:
            for kill in deliver_kills(sweep, store, pending):
                delivered.append(kill)
        finally:
            sweep.stop()
        status = sweep.process.returncode
        if any(kill.planned.kind is ProcessKind.DRIVER for kill in delivered[-1:]) and status == -signal.SIGKILL:
            continue
        repeats += 1
        if status in (0, 2) or repeats > REPEATS:
            return KilledRun(tuple(delivered), tuple(pending), runs, status)


def deliver_kills(sweep: SweepProcess, store: Store, pending: list[PlannedKill]) -> Iterator[DeliveredKill]:
    """Deliver the kills of `pending` that fall due during one run, removing each; ends when the driver has ended."""
    counted, cost = time.monotonic(), 0.0
    while sweep.status is None:
        sweep.next_line(LINE_SECONDS)
        now = time.monotonic()
        if now - counted < max(LINE_SECONDS, 5 * cost):  # counting must not become a load
            continue
        stored, counted = count_store(store), time.monotonic()
        cost = counted - now
        for planned in [planned for planned in pending if planned.at <= stored.total]:
            if (process := _kill_one(sweep, planned.kind)) is not None:
                pending.remove(planned)
                yield DeliveredKill(planned, process, stored)
                if planned.kind is ProcessKind.DRIVER:
                    return
                break  # one at a time: count again before the next


def _kill_one(sweep: SweepProcess, kind: ProcessKind) -> str | None:
    """Kill a process of `kind`; returns which, or None if none is up."""
    if kind is ProcessKind.DRIVER:
        sweep.kill()
        return f"driver, pid {sweep.process.pid}"
    role = PARENT.get(kind, kind)
    for worker in list(sweep.workers.values()):
        if worker.name.partition("-")[0] != role:
            continue
        pid = kill_on(worker.host, worker.pid, kind in PARENT)
        if pid is not None:
            whose = f"child {pid} of " if kind in PARENT else ""
            return f"{whose}{worker.name}, pid {worker.pid} on {worker.host}"
        if kind not in PARENT:
            del sweep.workers[worker.name]  # it has ended without a log line, as a retired worker does
    return None


def kill_on(host: str, pid: int, child: bool = False) -> int | None:
    """`kill_here` on machine `host`."""
    if host == socket.gethostname():
        return kill_here(pid, child)
    from orchestrator.cluster.ray_backend import run_on_host

    return run_on_host(host, kill_here, pid, child)


def kill_here(pid: int, child: bool = False) -> int | None:
    """SIGKILL one of Ray's workers, or its youngest child. Returns the pid that was killed.

    None if there is no such process: a pid that belongs to another program by now is left alone.
    """
    if not _is_ray_worker(pid):
        return None
    pids = children(pid) if child else [pid]
    if not pids:
        return None
    try:
        os.kill(pids[-1], signal.SIGKILL)
    except ProcessLookupError:
        return None
    return pids[-1]


def _is_ray_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The living child processes of `pid`, oldest first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:  # it ended while we looked
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(entry.parent.name))
    return sorted(found)
