"""A driver's claim to a sweep: what it says of itself, and whether another driver may take the sweep over. Pure.

The clocks of two machines are never compared. On the driver's own machine its process is looked up; from another
machine its heartbeats are watched for a while by the watcher's own clock.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

MISSED_BEATS = 6
"""A driver on another machine counts as dead after this many missed heartbeats."""
LONGEST_BEAT = 60.0
"""Upper bound in seconds on a claim's `beat_seconds`, so that a foreign file cannot make a driver wait forever."""

_STORED_NAMES = {"process_space": "place"}
"""Fields whose key in the stored document differs from their name: the document's format is frozen."""


@dataclass(frozen=True)
class Claim:
    """What the driver of a sweep writes into the store, and rewrites at every heartbeat."""

    token: str
    """Unique to one run of a driver."""
    host: str
    process_space: str
    """The machine's boot id and PID namespace, within which `pid` is meaningful; empty if unknown."""
    pid: int
    started: str
    """The process's start time in clock ticks since boot: tells it from a later process with the same pid."""
    user: str
    command: str
    since: float
    """When the driver started, in seconds since the epoch by its own clock. Shown to people, never compared."""
    beat_seconds: float
    beat: int = 0
    """How many heartbeats there have been."""

    def document(self) -> dict[str, Any]:
        """The claim as it is stored."""
        return {_STORED_NAMES.get(name, name): value for name, value in asdict(self).items()}


def read_claim(document: Mapping[str, Any] | None) -> Claim | None:
    """The claim in a stored document; None if there is no document or it is not a claim."""
    if document is None:
        return None
    names = {stored: name for name, stored in _STORED_NAMES.items()}
    try:
        return Claim(**{names.get(key, key): value for key, value in document.items()})
    except TypeError:
        return None


@dataclass(frozen=True)
class Observation:
    """What has been seen of another driver's claim since it was first read."""

    running: bool | None
    """Whether the driver's process runs; None if that cannot be seen from here."""
    first: Claim
    """The claim when it was first read."""
    seconds: float
    """How long ago that was."""


class Verdict(Enum):
    TAKE = auto()
    REFUSE = auto()
    WATCH = auto()
    """Not known yet."""


def judge(found: Claim | None, seen: Observation | None) -> Verdict:
    """Whether a sweep may be taken over whose claim now reads `found`. `seen` is None before the first observation."""
    if found is None:
        return Verdict.TAKE
    if seen is None:
        return Verdict.WATCH
    if seen.running is not None:
        return Verdict.REFUSE if seen.running else Verdict.TAKE
    if (found.token, found.beat) != (seen.first.token, seen.first.beat):
        return Verdict.REFUSE
    patience = MISSED_BEATS * min(found.beat_seconds, LONGEST_BEAT)
    return Verdict.TAKE if seen.seconds >= patience else Verdict.WATCH


def describe(claim: Claim) -> str:
    """A driver for people: user, process, host, start time and command."""
    try:
        since = datetime.fromtimestamp(claim.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError, TypeError):
        since = "an unknown time"
    return f"{claim.user}, process {claim.pid} on {claim.host}, since {since} ({claim.command})"
