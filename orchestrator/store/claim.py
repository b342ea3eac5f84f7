"""Who drives a sweep: what a driver says of itself, and whether another may take its place. Pure.

Clocks of two machines are never compared. On the driver's own machine its process is looked up. From another machine
its beats are watched for a while of one's own clock: if they go on, it is alive.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

PATIENCE = 6
"""Beats that may be missed before a driver on another machine counts as dead."""
LONGEST_BEAT = 60.0
"""Seconds between beats, whatever a claim says: a foreign file must not make anybody wait for ever."""


@dataclass(frozen=True)
class Claim:
    """What the driver of a sweep writes into the store, and writes again at every beat."""

    token: str
    """Of this one run of a driver; never used twice."""
    host: str
    place: str
    """The machine's boot and the process namespace within which `pid` means something; empty if unknown."""
    pid: int
    started: str
    """When the process started, in the machine's own count: process numbers come again."""
    user: str
    command: str
    since: float
    """Seconds since the epoch by the driver's own clock: for people."""
    beat_seconds: float
    beat: int = 0

    def document(self) -> dict[str, Any]:
        return asdict(self)


def read_claim(document: Mapping[str, Any] | None) -> Claim | None:
    """The claim that a document holds; None if it holds none, for then nobody can be asked."""
    try:
        return Claim(**document) if document is not None else None
    except TypeError:
        return None


@dataclass(frozen=True)
class Watched:
    """What was seen of the claim that is in the way."""

    running: bool | None
    """Whether its process runs; None if that cannot be seen from here."""
    first: Claim
    """The claim as it was when the watch began."""
    seconds: float
    """How long the watch has lasted."""


class Verdict(Enum):
    TAKE = auto()
    REFUSE = auto()
    WATCH = auto()
    """It cannot be said yet."""


def judge(found: Claim | None, watched: Watched | None) -> Verdict:
    """Whether a sweep that `found` claims may be taken. `watched` is None if there was nothing to watch yet."""
    if found is None:
        return Verdict.TAKE
    if watched is None:
        return Verdict.WATCH
    if watched.running is not None:
        return Verdict.REFUSE if watched.running else Verdict.TAKE
    if (found.token, found.beat) != (watched.first.token, watched.first.beat):
        return Verdict.REFUSE
    patience = PATIENCE * min(found.beat_seconds, LONGEST_BEAT)
    return Verdict.TAKE if watched.seconds >= patience else Verdict.WATCH


def who(claim: Claim) -> str:
    """A driver in words: who, where, since when, doing what."""
    try:
        since = datetime.fromtimestamp(claim.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError, TypeError):
        since = "an unknown time"
    return f"{claim.user}, process {claim.pid} on {claim.host}, since {since} ({claim.command})"
