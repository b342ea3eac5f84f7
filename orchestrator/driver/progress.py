"""What a person sees while a sweep runs: a live status line on a terminal, or a line every 15 s in a log."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from rich.live import Live
from rich.text import Text

from orchestrator.console import CONSOLE, duration, plural, say
from orchestrator.driver.time_left import TimeLeft
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Command,
    Event,
    Kill,
    NodeDraining,
    RecordFailures,
    Reported,
    Role,
    WorkerLost,
    WorkerReady,
)
from orchestrator.scheduler.fleet import Phase
from workers.failure import FailureKind
from workers.messages import PatchFailed, PatchMade, StoreBlocked, TaskFailed, WeightsLoaded

LOG_SECONDS = 15.0
LIVE_SECONDS = 0.25
ROLES = {Role.ENGINE: "engine", Role.PRUNE: "pruner", Role.GRADE: "grader"}


class Progress:
    """An observer that shows the sweep's state. `labels`: patch id -> the variant's name for people."""

    def __init__(self, labels: Mapping[str, str], live: Live | None) -> None:
        self._labels, self._live = labels, live
        self._began = self._last = time.monotonic()
        self._committed = False
        self._time_left = TimeLeft()
        self._told: set[str] = set()
        """What engines have room for, by the shapes that were told."""

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        for line in notable(event, commands, self._labels):
            say(line)
        if (told := capacity_line(core, event)) is not None and told not in self._told:
            self._told.add(told)
            say(told)
        moment = time.monotonic()
        self._time_left.observe(core, event, moment)
        if core.state.counters.committed and not self._committed:
            self._committed = True
            say(f"first draws committed, {moment - self._began:.0f} s after the fleet")
        if moment - self._last < (LOG_SECONDS if self._live is None else LIVE_SECONDS):
            return
        self._last = moment
        status = status_line(core, moment - self._began, self._time_left.interval(core, moment))
        if self._live is None:
            say(status)
        else:
            with suppress(OSError, ValueError):
                self._live.update(Text(status))


@contextmanager
def show_progress(labels: Mapping[str, str]) -> Iterator[Progress]:
    """A progress display on standard error: live if that is a terminal."""
    if not sys.stderr.isatty():
        yield Progress(labels, None)
        return
    with Live(console=CONSOLE, refresh_per_second=4, transient=True) as live:
        yield Progress(labels, live)


def status_line(core: Core, seconds: float, left: tuple[float, float] | None = None) -> str:
    """The state of a sweep in one line. `seconds`: since it began. `left`: at least and at most, until it ends."""
    counters = core.state.counters
    done = counters.committed + counters.failed
    tokens = counters.trace_tokens + counters.answer_tokens
    parts = [
        f"{done}/{counters.owed} draws",
        f"{counters.patches_made}/{counters.patches_owed} patches" if counters.patches_owed else "",
        f"{tokens:,} tokens",
        f"{counters.failed} given up" if counters.failed else "",
        duration(seconds) + _left(left),
        fleet_line(core),
    ]
    return " · ".join(part for part in parts if part)


def closing_line(core: Core) -> str:
    """What one run of a sweep did, in one line."""
    counters = core.state.counters
    parts = [
        f"{counters.committed} draws committed",
        f"{counters.failed} given up" if counters.failed else "",
        _tokens(counters.trace_tokens, counters.answer_tokens),
        f"{counters.cached_tokens / max(1, counters.prompt_tokens):.0%} of prompt tokens were cached",
        f"{plural(counters.engines_started, 'engine')} started",
        f"{plural(counters.swaps, 'swap')} in {counters.swap_seconds:.1f} s",
        f"{plural(counters.workers_lost, 'worker')} lost" if counters.workers_lost else "",
    ]
    return " · ".join(part for part in parts if part)


def _tokens(trace: int, answers: int) -> str:
    """Generated tokens, each counted once. Where the response is one piece (budget mode `none`), so is their number."""
    return f"{trace:,} thinking and {answers:,} answer tokens" if answers else f"{trace:,} tokens"


def fleet_line(core: Core) -> str:
    """How many workers of each role are in each phase: one line, however many workers there are."""
    parts = []
    for role, name in ROLES.items():
        counts = Counter(worker.phase for worker in core.state.fleet if worker.role is role)
        phases = [f"{counts[phase]} {phase}" for phase in Phase if counts[phase]]
        if phases:
            parts.append(f"{name}s: {', '.join(phases)}")
    return " · ".join(parts)


def capacity_line(core: Core, event: Event) -> str | None:
    """What an engine that has started has room for; the same for every engine of a shape on the same device."""
    worker = core.state.fleet.get(event.worker) if isinstance(event, WorkerReady) else None
    if worker is None or worker.shape is None or not isinstance(event, WorkerReady):
        return None
    if not (tokens := int(event.facts.settings.get("cache_tokens", 0))):
        return None
    shape = worker.shape
    longest = max(work.limit for work in core.state.contexts.values() if work.context.shape == shape)
    name = shape.model.rpartition("/")[2]
    return (
        f"engines of {name}, {shape.layers} blocks: cache of {tokens:,} tokens, room for "
        f"{plural(tokens // max(1, longest), 'trace')} of {longest:,}"
    )


def _left(interval: tuple[float, float] | None) -> str:
    return f", {duration(interval[0])} to {duration(interval[1])} left" if interval is not None else ""


def notable(event: Event, commands: Sequence[Command], labels: Mapping[str, str]) -> Iterator[Text]:
    """The lines for events that get one of their own. `drill` reads "is ready on" and "lost"."""
    match event:
        case WorkerReady(worker, facts):
            yield Text(f"{worker} is ready on {facts.host}, pid {facts.pid} (log: {facts.log or 'none'})")
        case Reported(worker, WeightsLoaded(patch_id=patch, seconds=seconds, canary_error=error)):
            yield Text(f"{worker} holds {labels[patch]}, proved in {seconds:.2f} s (canary within {error:.3f} nats)")
        case Reported(_, PatchMade(patch_id=patch, sparsity=sparsity, seconds=seconds)):
            yield Text(f"{labels[patch]} made in {seconds:.1f} s, sparsity {sparsity:.4f} (patch {patch})")
        case WorkerLost(worker, failure) if failure.kind is not FailureKind.RETIRED:
            log = f" (log: {failure.log})" if failure.log else ""
            yield Text.assemble((f"{worker} lost", "red"), f": {failure.kind}: {failure.cause}{log}")
        case Reported(worker, StoreBlocked(failure=failure)):
            yield Text.assemble((f"{worker} waits", "yellow"), f": {failure.kind}: {failure.cause}")
        case NodeDraining(workers, reason):
            asked = f"{plural(len(workers), 'worker')} asked to commit and close"
            yield Text.assemble((asked, "yellow"), f": {reason}")
        case Reported(worker, PatchFailed(_, patch, failure)):
            yield Text.assemble((f"{labels[patch]} not made", "red"), f" on {worker}: {failure.kind}: {failure.cause}")
        case Reported(worker, TaskFailed(task_id, failure)):
            yield Text.assemble((f"{task_id} failed", "red"), f" on {worker}: {failure.kind}: {failure.cause}")
    for command in commands:
        match command:
            case RecordFailures(numbers=numbers, failure=failure):
                yield Text.assemble(
                    (f"{plural(len(numbers), 'draw')} given up", "red"), f": {failure.kind}: {failure.cause}"
                )
            case Kill(worker, failure) if failure.kind is not FailureKind.RETIRED:
                yield Text.assemble((f"discarding {worker}", "red"), f": {failure.cause}")
