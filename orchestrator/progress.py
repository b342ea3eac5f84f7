"""What a person sees while a sweep runs: a live line on a terminal, now and then a plain one in a log."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.core import Core
from orchestrator.events import (
    Command,
    Discard,
    Event,
    Leaving,
    RecordFailures,
    Reported,
    WorkerLost,
    WorkerReady,
)
from orchestrator.fleet import Life
from workers.messages import Failed, PatchMade, Swapped, Troubled

CONSOLE = Console(stderr=True, highlight=False)
LOG_SECONDS = 15.0


def say(message: str) -> None:
    """One line on standard error, with the time."""
    CONSOLE.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {message}", soft_wrap=True)


class Progress:
    """An observer that shows the sweep's state."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._began = self._last = time.monotonic()
        self._committed = False

    def observe(self, core: Core, event: Event, commands: Sequence[Command], now: float) -> None:
        for line in notable(event, commands):
            say(line)
        moment = time.monotonic()
        if core.state.tally.committed and not self._committed:
            self._committed = True
            say(f"first draws committed, {moment - self._began:.0f} s after the fleet")
        if self._live is not None:
            self._live.update(Text(status_line(core, moment - self._began)))
        elif moment - self._last >= LOG_SECONDS:
            self._last = moment
            say(status_line(core, moment - self._began))


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A progress display on standard error: live where that is a terminal."""
    if not sys.stderr.isatty():
        yield Progress(None)
        return
    with Live(console=CONSOLE, refresh_per_second=4, transient=True) as live:
        yield Progress(live)


def status_line(core: Core, seconds: float) -> str:
    """Where a sweep stands, in one line."""
    tally = core.state.tally
    done = tally.committed + tally.failed
    tokens = tally.trace_tokens + tally.answer_tokens
    states = [f"{s.worker} {s.life}" for s in core.state.fleet if s.life is not Life.IDLE]
    parts = [
        f"{done}/{tally.owed} draws",
        f"{tally.patches_made}/{tally.patches_owed} patches" if tally.patches_owed else "",
        f"{tokens:,} tokens",
        f"{tally.failed} given up" if tally.failed else "",
        f"{_left(done, tally.owed, seconds)}",
        ", ".join(states),
    ]
    return " · ".join(part for part in parts if part)


def closing_line(core: Core) -> str:
    """What a run of a sweep did, in one line."""
    tally = core.state.tally
    parts = [
        f"{tally.committed} draws committed",
        f"{tally.failed} given up" if tally.failed else "",
        f"{tally.trace_tokens:,} thinking and {tally.answer_tokens:,} answer tokens",
        f"{tally.cached_tokens / max(1, tally.prompt_tokens):.0%} of prompt tokens were cached",
        f"{tally.engines_started} engines started, {tally.swaps} swaps in {tally.swap_seconds:.1f} s",
        f"{tally.workers_lost} workers lost" if tally.workers_lost else "",
    ]
    return " · ".join(part for part in parts if part)


def _left(done: int, owed: int, seconds: float) -> str:
    if not done or done >= owed:
        return f"{seconds:.0f} s"
    return f"{seconds:.0f} s, about {seconds / done * (owed - done):.0f} s left"


def notable(event: Event, commands: Sequence[Command]) -> Iterator[str]:
    """Events worth a line of their own."""
    match event:
        case WorkerReady(worker, facts):
            yield f"{worker} is ready on {facts.host}, pid {facts.pid} (log: {facts.log or 'none'})"
        case Reported(worker, Swapped(patch_id=patch, seconds=seconds, canary_error=error)):
            yield f"{worker} holds {patch}, proved in {seconds:.2f} s (canary within {error:.3f} nats)"
        case Reported(_, PatchMade(patch_id=patch, sparsity=sparsity, seconds=seconds)):
            yield f"patch {patch} made in {seconds:.1f} s, sparsity {sparsity:.4f}"
        case WorkerLost(worker, failure) if failure.kind != "retired":
            log = f" (log: {failure.log})" if failure.log else ""
            yield f"[red]{worker} lost[/red]: {failure.kind}: {failure.cause}{log}"
        case Reported(worker, Troubled(failure=failure)):
            yield f"[yellow]{worker} waits[/yellow]: {failure.kind}: {failure.cause}"
        case Leaving(workers, reason):
            yield f"[yellow]{len(workers)} workers hand in[/yellow]: {reason}"
        case Reported(worker, Failed(task_id, failure)):
            yield f"[red]{task_id} failed[/red] on {worker}: {failure.kind}: {failure.cause}"
    for command in commands:
        match command:
            case RecordFailures(numbers=numbers, failure=failure):
                yield f"[red]{len(numbers)} draws given up[/red]: {failure.kind}: {failure.cause}"
            case Discard(worker, failure):
                yield f"[red]discarding {worker}[/red]: {failure.cause}"
