"""The lease of a sweep: at most one driver at a time, recorded in the store as `drivers/<id>.json`.

There are no file locks. A driver creates its claim; on a disk exactly one of two concurrent drivers succeeds. Object
storage has no exclusive create, so a driver waits a moment and reads the claim back: the last writer holds the lease,
and the others see that. A background thread rewrites the claim at every heartbeat and notices when another driver has
taken it over.

On its own machine a killed driver is known to be dead at once; from other machines, when its heartbeats stop. A driver
that is suspended (SIGSTOP, a sleeping laptop) keeps its lease on its own machine, because it may go on. From another
machine it looks dead and is taken over; when it goes on, it notices within a heartbeat and must stop.

Workers watch the lease too (`Lease`): they exit within one heartbeat of a takeover, even if their driver is suspended
or cut off, so that they commit nothing more and free their devices. The new driver waits that long before it reads what
is stored. A worker that is itself suspended, or cannot read the store, for longer than that may commit once more when
it goes on: that draw is then stored twice, and one row counts. None is lost.
"""

import getpass
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.identity import name_of
from orchestrator.store.claim import LONGEST_BEAT, Claim, Observation, Verdict, describe, judge, read_claim
from orchestrator.store.store import Store, StoreError, StoreUnavailable

BEAT_SECONDS = 5.0
SETTLE_SECONDS = 0.5
"""Between writing a claim and reading it back: longer than another driver takes from reading to writing."""
RELEASE_SECONDS = 5.0
"""How long the end waits for a heartbeat that is being written; if the store hangs, the claim stays behind."""


@dataclass(frozen=True)
class Lease:
    """A driver's lease, as its workers see it. It pickles."""

    store: Store
    path: str
    token: str
    beat_seconds: float

    def taken_by(self) -> str | None:
        """The driver that has taken the lease over, or None. Raises StoreUnavailable if that cannot be read.

        A missing claim means that another driver took over and has ended since: only its holder, or a driver taking
        over, removes a claim.
        """
        found = self._find()
        if found is None:
            return "a driver that has ended since"
        return None if found.token == self.token else describe(found)

    def in_sight(self) -> bool:
        """Whether there is a claim to the sweep. If this machine sees none while the driver runs, what it has under the
        store's address is not the driver's store. Raises StoreUnavailable if that cannot be read."""
        return self._find() is not None

    def _find(self) -> Claim | None:
        found = self._read()
        if found is None:
            time.sleep(SETTLE_SECONDS)  # a takeover removes the old claim just before it writes its own
            found = self._read()
        return found

    def _read(self) -> Claim | None:
        return read_claim(self.store.get_document(self.path))


class LeaseLost(Exception):
    """Another driver has taken over; the message says which. Nothing more may be committed from here."""


class SweepHeld(StoreError):
    """Another driver is alive and holds the lease. The message says who, where, since when, and what to do."""


@contextmanager
def hold_lease(
    store: Store,
    name: str,
    say: Callable[[str], None],
    on_lost: Callable[[str], None],
    beat_seconds: float = BEAT_SECONDS,
) -> Iterator[Lease]:
    """Be the only driver of sweep `name` in `store` while the block runs.

    Raises SweepHeld if another driver is alive, and StoreUnavailable. `say` gets a line when it waits. `on_lost` is
    called at most once, from another thread, with the reason why this driver must stop.
    """
    holder = _Holder(store, name, own_claim(beat_seconds), say, on_lost)
    holder.acquire()
    heartbeats = threading.Thread(target=holder.renew, name="lease", daemon=True)
    heartbeats.start()
    try:
        yield holder.lease()
    finally:
        holder.ended.set()
        heartbeats.join(RELEASE_SECONDS)
        if not heartbeats.is_alive():
            holder.release()


def claim_path(name: str) -> str:
    """The path in the store of the claim to sweep `name`."""
    return f"drivers/{name_of({'version': 1, 'what': 'driver', 'name': name})}.json"


def own_claim(beat_seconds: float) -> Claim:
    """This process's claim."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return Claim(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        process_space=_process_space(),
        pid=os.getpid(),
        started=_started(os.getpid()) or "",
        user=user,
        command=shlex.join(sys.argv)[:300],
        since=time.time(),
        beat_seconds=beat_seconds,
    )


class _Holder:
    """Acquires, renews and releases one lease."""

    def __init__(
        self, store: Store, name: str, claim: Claim, say: Callable[[str], None], on_lost: Callable[[str], None]
    ) -> None:
        self._store, self._name, self._claim, self._say, self._on_lost = store, name, claim, say, on_lost
        self._path = claim_path(name)
        self.ended = threading.Event()

    def lease(self) -> Lease:
        return Lease(self._store, self._path, self._claim.token, self._claim.beat_seconds)

    def acquire(self) -> None:
        """Take the lease if no living driver holds it; wait until that is known. Raises SweepHeld."""
        seen: Observation | None = None
        began = time.monotonic()
        settle = SETTLE_SECONDS
        while True:
            found = self._read()
            if found is not None and found.token == self._claim.token:
                return
            if found is not None:
                if seen is None or seen.first.token != found.token:
                    seen, began = Observation(_running(found), found, 0.0), time.monotonic()
                    if seen.running is None:
                        self._say(f"{self._name}: checking whether its driver is alive: {describe(found)}")
                seen = replace(seen, running=_running(found), seconds=time.monotonic() - began)
            match judge(found, seen):
                case Verdict.REFUSE:
                    assert found is not None
                    raise SweepHeld(self._refusal(found))
                case Verdict.TAKE:
                    if found is not None:
                        if seen is not None and seen.running is None:
                            # It only looks dead, and its workers live until they next read the claim.
                            settle = SETTLE_SECONDS + min(found.beat_seconds, LONGEST_BEAT)
                        self._store.files.remove(self._path)
                    if self._store.create_document(self._path, self._claim.document()):
                        time.sleep(settle)
                case Verdict.WATCH:
                    assert found is not None
                    time.sleep(min(found.beat_seconds, LONGEST_BEAT) / 2)

    def renew(self) -> None:
        """Write heartbeats until the end. An unreachable store costs heartbeats, not the lease."""
        silent = False
        while not self.ended.wait(self._claim.beat_seconds):
            try:
                if (other := self.lease().taken_by()) is not None:
                    self._on_lost(f"another driver has taken over {self._name}: {other}")
                    return
                self._claim = replace(self._claim, beat=self._claim.beat + 1)
                self._store.put_document(self._path, self._claim.document())
                silent = False
            except StoreError as error:
                if not silent:
                    self._say(f"{self._name}: {error}")
                silent = True

    def release(self) -> None:
        """Remove the claim, unless another driver has taken over."""
        with suppress(StoreUnavailable):
            found = self._read()
            if found is not None and found.token == self._claim.token:
                self._store.files.remove(self._path)

    def _read(self) -> Claim | None:
        return read_claim(self._store.get_document(self._path))

    def _refusal(self, found: Claim) -> str:
        return (
            f"sweep {self._name} in store {self._store.uri} has a driver already: {describe(found)}. Let it finish, or "
            f"stop it there with `kill {found.pid}` and run the same command again: the sweep is free once it has ended"
        )


def _running(claim: Claim) -> bool | None:
    """Whether a claim's process runs; None if it belongs to another machine, boot or PID namespace."""
    if not claim.process_space or claim.process_space != _process_space():
        return None
    return _started(claim.pid) == claim.started


def _process_space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: even drivers of this machine are known by their heartbeats only
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None if there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZXx" else fields[19]
