"""The lease of a sweep: one driver at a time, seen in the store as `drivers/<id>.json`.

There are no file locks. A driver creates its claim, which on a disk only one can; object storage has no such thing, so
it waits a moment and reads the claim back: the last to write has it, and the others see that. A background thread
writes the claim again at every beat; it also finds out if another has taken the place, and tells.

A driver that was killed is known to be dead on its own machine at once, and elsewhere when its beats stay away. One
that is stopped (SIGSTOP, a suspended laptop) is refused its place on its own machine, since it may go on; from another
machine it looks dead, and its place is taken. When it goes on, it finds that out within a beat and must stop.

Its workers look after the place, too (`Lease`): within a beat of its being taken they are gone, though their driver be
stopped or cut off, so that they commit nothing more and free their devices. The successor waits as long before it
begins, and then counts what the store holds. A worker that is itself stopped, or cannot read the store, for longer than
that may commit once more when it goes on: that draw is made twice, of which one counts. None is lost.
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
from orchestrator.store.claim import LONGEST_BEAT, Claim, Verdict, Watched, judge, read_claim, who
from orchestrator.store.store import Store, StoreError, StoreUnavailable

BEAT_SECONDS = 5.0
SETTLE_SECONDS = 0.5
"""Between writing a claim and believing it: longer than another driver takes from reading to writing."""
RELEASE_SECONDS = 5.0
"""How long a beat that is on its way is waited for at the end; without the store, it is left behind."""


@dataclass(frozen=True)
class Lease:
    """A driver's place at a sweep, as its workers see it. It pickles."""

    store: Store
    path: str
    token: str
    beat_seconds: float

    def taken_by(self) -> str | None:
        """Who has taken the place; None while nobody has. Raises StoreUnavailable if that cannot be said.

        A claim that is gone was another's by then, who has ended since: only he removes it who has it, or takes it.
        """
        found = self._read()
        if found is None:
            time.sleep(SETTLE_SECONDS)  # it may just be changing hands
            found = self._read()
        if found is None:
            return "a driver that has ended since"
        return None if found.token == self.token else who(found)

    def _read(self) -> Claim | None:
        return read_claim(self.store.get_document(self.path))


class Displaced(Exception):
    """Another driver has this one's place. Nothing more may be committed from here; the message says who has it."""


class SweepHeld(StoreError):
    """Another driver, which is alive, drives this sweep. The message says who, where, since when, and what to do."""


@contextmanager
def hold_lease(
    store: Store,
    name: str,
    say: Callable[[str], None],
    on_lost: Callable[[str], None],
    beat_seconds: float = BEAT_SECONDS,
) -> Iterator[Lease]:
    """Be the only driver of sweep `name` in `store` for as long as the block runs.

    Raises SweepHeld if another is alive, and StoreUnavailable. `say` is told what is waited for. `on_lost` is called at
    most once, from another thread, with the reason why this driver must stop.
    """
    lease = _Lease(store, name, own_claim(beat_seconds), say, on_lost)
    lease.take()
    beats = threading.Thread(target=lease.beat_on, name="lease", daemon=True)
    beats.start()
    try:
        yield lease.place()
    finally:
        lease.ended.set()
        beats.join(RELEASE_SECONDS)
        if not beats.is_alive():
            lease.release()


def claim_path(name: str) -> str:
    """Where in the store the claim to sweep `name` is."""
    return f"drivers/{name_of({'version': 1, 'what': 'driver', 'name': name})}.json"


def own_claim(beat_seconds: float) -> Claim:
    """What this process says of itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return Claim(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        place=_place(),
        pid=os.getpid(),
        started=_started(os.getpid()) or "",
        user=user,
        command=shlex.join(sys.argv)[:300],
        since=time.time(),
        beat_seconds=beat_seconds,
    )


class _Lease:
    def __init__(
        self, store: Store, name: str, claim: Claim, say: Callable[[str], None], on_lost: Callable[[str], None]
    ) -> None:
        self._store, self._name, self._claim, self._say, self._on_lost = store, name, claim, say, on_lost
        self._path = claim_path(name)
        self.ended = threading.Event()

    def place(self) -> Lease:
        return Lease(self._store, self._path, self._claim.token, self._claim.beat_seconds)

    def take(self) -> None:
        """Take the place if nobody alive has it, and wait until that can be said."""
        watched: Watched | None = None
        began = time.monotonic()
        settle = SETTLE_SECONDS
        while True:
            found = self._read()
            if found is not None and found.token == self._claim.token:
                return
            if found is not None:
                if watched is None or watched.first.token != found.token:
                    watched, began = Watched(_running(found), found, 0.0), time.monotonic()
                    if watched.running is None:
                        self._say(f"{self._name}: looking whether its driver is alive: {who(found)}")
                watched = replace(watched, running=_running(found), seconds=time.monotonic() - began)
            match judge(found, watched):
                case Verdict.REFUSE:
                    assert found is not None
                    raise SweepHeld(self._refusal(found))
                case Verdict.TAKE:
                    if found is not None:
                        if watched is not None and watched.running is None:
                            # It only looks dead, and its workers live until they look next.
                            settle = SETTLE_SECONDS + min(found.beat_seconds, LONGEST_BEAT)
                        self._store.files.remove(self._path)
                    if self._store.create_document(self._path, self._claim.document()):
                        time.sleep(settle)
                case Verdict.WATCH:
                    assert found is not None
                    time.sleep(min(found.beat_seconds, LONGEST_BEAT) / 2)

    def beat_on(self) -> None:
        """Beat until the end. An unreachable store costs beats, and not the lease."""
        silent = False
        while not self.ended.wait(self._claim.beat_seconds):
            try:
                if (other := self.place().taken_by()) is not None:
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
        """Leave the place, unless it is another's by now."""
        with suppress(StoreUnavailable):
            found = self._read()
            if found is not None and found.token == self._claim.token:
                self._store.files.remove(self._path)

    def _read(self) -> Claim | None:
        return read_claim(self._store.get_document(self._path))

    def _refusal(self, found: Claim) -> str:
        return (
            f"sweep {self._name} in store {self._store.uri} has a driver already: {who(found)}. Let it finish, or stop "
            f"it there with `kill {found.pid}` and run the same command again: its place is free the moment it ends"
        )


def _running(claim: Claim) -> bool | None:
    """Whether the process of a claim runs; None if it is not of this machine, boot and process namespace."""
    if not claim.place or claim.place != _place():
        return None
    return _started(claim.pid) == claim.started


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: its own drivers, too, are known by their beats
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None if it is not there, or is only waiting to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZXx" else fields[19]
