"""Standings, grouped and put into sentences: why draws are owed, and which were given up. Pure."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.explain.draw_status import DrawState, DrawStatus


@dataclass(frozen=True)
class Reason:
    """Draws of a cell that are owed for one reason."""

    why: str
    """A `DrawState`, or given-up."""
    sentence: str
    draws: int
    benchmarks: Mapping[str, int]
    """Benchmark -> how many of the draws are its."""
    example: DrawStatus


@dataclass(frozen=True)
class GivenUp:
    """Draws of one variant that were given up alike. `cause`, `attempts` and `log` are those of the newest."""

    variant: str
    kind: str
    cause: str
    draws: int
    attempts: int
    newest: float
    """Seconds since the epoch."""
    log: str

    @property
    def sentence(self) -> str:
        where = f"; log {self.log}" if self.log else ""
        tries = f"{self.attempts} attempt{'s' * (self.attempts != 1)}"
        return f"{self.kind}: {self.cause} ({tries}, last {moment(self.newest)}{where})"


def state_of(standings: Iterable[DrawStatus]) -> str:
    """cached, owed or failed: the worst of the draws of a cell."""
    states = {"failed" if one.failed else "cached" if one.why is DrawState.CACHED else "owed" for one in standings}
    return next((state for state in ("failed", "owed") if state in states), "cached")


def reasons(standings: Iterable[DrawStatus], grader: str) -> tuple[Reason, ...]:
    """Why draws are owed, what failed first, then by number."""
    groups: dict[tuple[str, ...], list[DrawStatus]] = {}
    standings = list(standings)
    several = len({one.seed for one in standings}) > 1
    for one in standings:
        if one.why is not DrawState.CACHED:
            groups.setdefault(_group(one), []).append(one)
    ordered = sorted(groups.values(), key=lambda group: (not group[0].failed, -len(group)))
    return tuple(_reason(group, grader, several) for group in ordered)


def given_up(failures: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[GivenUp, ...]:
    """(variant, failure row) of draws that were given up, grouped by variant, kind and cause; newest group first."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for variant, row in failures:
        groups.setdefault((variant, row["kind"], alike(row["cause"])), []).append(row)
    found = []
    for (variant, kind, _), rows in groups.items():
        newest = max(rows, key=lambda row: float(row["created_at"]))
        draws = len({(row["context_id"], row["prompt_id"], row["seed"]) for row in rows})
        attempts, at = int(newest["attempts"]), float(newest["created_at"])
        found.append(GivenUp(variant, kind, newest["cause"], draws, attempts, at, newest["log"]))
    return tuple(sorted(found, key=lambda one: -one.newest))


def alike(cause: str) -> str:
    """A cause without its numbers: "died at ask 7" and "died at ask 9" are told together."""
    return re.sub(r"\d+", "#", cause)


def moment(seconds: float) -> str:
    """A time for a person, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _group(one: DrawStatus) -> tuple[str, ...]:
    if one.failure is not None:
        return ("given-up", one.failure["kind"], alike(one.failure["cause"]))
    if one.grade is not None:
        return (one.why, alike(one.grade.cause or ""))
    return (one.why, one.note, str(one.cut) if one.why is DrawState.EXTENSION else "")


def _reason(group: list[DrawStatus], grader: str, several: bool) -> Reason:
    first = group[0]
    why = "given-up" if first.failure is not None else first.why.value
    return Reason(
        why, _sentence(group, grader, several), len(group), Counter(one.question.benchmark for one in group), first
    )


def _sentence(group: list[DrawStatus], grader: str, several: bool) -> str:
    first = group[0]
    if first.failure is not None:
        newest = given_up(("", one.failure) for one in group if one.failure is not None)[0]
        return f"given up earlier, and the next sweep tries again: {newest.sentence}"
    note = f" ({first.note})" if first.note else ""
    match first.why:
        case DrawState.PATCH:
            return f"no patch yet: the weights have to be pruned first{note}"
        case DrawState.TRACE:
            return f"no trace yet{_seeds(group) if several else ''}{note}"
        case DrawState.EXTENSION:
            return f"the trace is held to {first.cut} of {first.limit} tokens: only the extension is owed"
        case DrawState.ANSWER:
            cuts = {one.cut for one in group}
            where = f"cut {first.cut}" if len(cuts) == 1 else f"cuts {min(cuts)} to {max(cuts)}"
            return f"the trace is held: only the answer at {where} is owed"
        case DrawState.GRADER_FAILED:
            assert first.grade is not None
            return f"answered, but {grader} failed: {first.grade.cause}; `regrade` or the next sweep tries again"
        case _:
            return f"answered, but {grader} has not judged{note}; `regrade` or the next sweep does"


def _seeds(group: list[DrawStatus]) -> str:
    seeds = sorted({one.seed for one in group})
    return f" with seed {seeds[0]}" if len(seeds) == 1 else ""
