"""Groups draws by their status and says in a sentence why each group is owed, or was given up. Pure."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.explain.draw_status import DrawState, DrawStatus


@dataclass(frozen=True)
class Reason:
    """The draws of a cell that are owed for one reason."""

    why: str
    """The value of a `DrawState`, or `given-up`."""
    sentence: str
    draws: int
    benchmarks: Mapping[str, int]
    """Benchmark -> how many of the draws belong to it."""
    example: DrawStatus


@dataclass(frozen=True)
class GivenUp:
    """Draws of one variant that were given up for the same cause. `cause`, `attempts` and `log` are the latest's."""

    variant: str
    kind: str
    cause: str
    draws: int
    attempts: int
    newest: float
    """When the latest was given up, in seconds since the epoch."""
    log: str

    @property
    def sentence(self) -> str:
        where = f"; log {self.log}" if self.log else ""
        tries = f"{self.attempts} attempt{'s' * (self.attempts != 1)}"
        return f"{self.kind}: {self.cause} ({tries}, last {local_time(self.newest)}{where})"


def cell_state(statuses: Iterable[DrawStatus]) -> str:
    """complete, owed or failed: the worst among the draws of a cell."""
    states = {"failed" if one.failed else "complete" if one.state is DrawState.COMPLETE else "owed" for one in statuses}
    return next((state for state in ("failed", "owed") if state in states), "complete")


def reasons(statuses: Iterable[DrawStatus], grader: str) -> tuple[Reason, ...]:
    """Why draws are owed: failures first, then the largest group first."""
    groups: dict[tuple[str, ...], list[DrawStatus]] = {}
    statuses = list(statuses)
    several = len({one.seed for one in statuses}) > 1
    for one in statuses:
        if one.state is not DrawState.COMPLETE:
            groups.setdefault(_group(one), []).append(one)
    ordered = sorted(groups.values(), key=lambda group: (not group[0].failed, -len(group)))
    return tuple(_reason(group, grader, several) for group in ordered)


def given_up(failures: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[GivenUp, ...]:
    """Group (variant, failure row) pairs by variant, kind and cause; the group with the latest failure comes first."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for variant, row in failures:
        groups.setdefault((variant, row["kind"], without_numbers(row["cause"])), []).append(row)
    found = []
    for (variant, kind, _), rows in groups.items():
        newest = max(rows, key=lambda row: float(row["created_at"]))
        draws = len({(row["context_id"], row["prompt_id"], row["seed"]) for row in rows})
        attempts, at = int(newest["attempts"]), float(newest["created_at"])
        found.append(GivenUp(variant, kind, newest["cause"], draws, attempts, at, newest["log"]))
    return tuple(sorted(found, key=lambda one: -one.newest))


def without_numbers(cause: str) -> str:
    """A cause without its numbers, so that "died at ask 7" and "died at ask 9" fall into one group."""
    return re.sub(r"\d+", "#", cause)


def local_time(seconds: float) -> str:
    """`2026-01-31 12:00:00`, in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _group(one: DrawStatus) -> tuple[str, ...]:
    if one.failure is not None:
        return ("given-up", one.failure["kind"], without_numbers(one.failure["cause"]))
    if one.grade is not None:
        return (one.state, without_numbers(one.grade.cause or ""))
    return (one.state, one.note, str(one.cut) if one.state is DrawState.EXTENSION else "")


def _reason(group: list[DrawStatus], grader: str, several: bool) -> Reason:
    first = group[0]
    why = "given-up" if first.failure is not None else first.state.value
    return Reason(
        why, _sentence(group, grader, several), len(group), Counter(one.question.benchmark for one in group), first
    )


def _sentence(group: list[DrawStatus], grader: str, several: bool) -> str:
    first = group[0]
    if first.failure is not None:
        newest = given_up(("", one.failure) for one in group if one.failure is not None)[0]
        return f"given up; the next sweep tries again: {newest.sentence}"
    note = f" ({first.note})" if first.note else ""
    match first.state:
        case DrawState.PATCH:
            return f"no patch yet: it is made before any trace{note}"
        case DrawState.TRACE:
            return f"no trace yet{_seeds(group) if several else ''}{note}"
        case DrawState.EXTENSION:
            return f"the trace is stored up to {first.cut} of {first.limit} tokens: only its extension is owed"
        case DrawState.ANSWER:
            cuts = {one.cut for one in group}
            where = f"cut {first.cut}" if len(cuts) == 1 else f"cuts {min(cuts)} to {max(cuts)}"
            return f"the trace is stored: only the answer at {where} is owed"
        case DrawState.GRADER_FAILED:
            assert first.grade is not None
            return f"answered, but {grader} failed: {first.grade.cause}; `regrade` or the next sweep tries again"
        case _:
            return f"answered, but {grader} has not judged{note}; `regrade` or the next sweep does"


def _seeds(group: list[DrawStatus]) -> str:
    seeds = sorted({one.seed for one in group})
    return f" with seed {seeds[0]}" if len(seeds) == 1 else ""
