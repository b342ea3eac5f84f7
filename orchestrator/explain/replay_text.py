"""A replay in words and as JSON: its events and decisions, and the state of a sweep at one of them."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from orchestrator.console import plural
from orchestrator.explain.replay import ReplayStep
from orchestrator.explain.replay_reasons import changes, reason
from orchestrator.explain.replay_story import Story
from orchestrator.explain.replay_words import Names, command_text, event_text, task_text
from orchestrator.grid.errors import InputError
from orchestrator.scheduler.event_log import encode
from orchestrator.scheduler.events import Event, Reported, Tick
from orchestrator.scheduler.fleet import WorkerState
from workers.messages import Committed, Graded, Heartbeat, TaskEnded, WantsMore

INDENT = " " * 21
COUNTED: dict[type, str] = {
    Committed: "commit",
    Graded: "grading",
    Heartbeat: "heartbeat",
    TaskEnded: "task end",
    Tick: "tick",
    WantsMore: "request for more",
}
"""Events of ordinary progress: unless something comes of one, it is only counted."""

ALWAYS_COUNTED = (Heartbeat, Tick, WantsMore)
"""Events that are only counted even in the story of one worker or draw."""


def replay_text(steps: Iterable[ReplayStep], story: Story) -> Iterator[str]:
    """A line for each event that led to a command or a notable change, and one for each command."""
    skipped: Counter[str] = Counter()
    names: Names | None = None
    for step in steps:
        names = names or Names(step.after)
        if not step.same:
            yield from _difference(step, names)
        indices = story.part(step)
        if indices is None or step.error is not None:
            continue
        lines = [f"→ {command_text(step.commands[n], names)}: {reason(step, n, names)}" for n in indices]
        lines += [f"· {change}" for change in changes(step, names)]
        if not lines and _is_quiet(step.event, story):
            skipped[COUNTED[type(step.event.report if isinstance(step.event, Reported) else step.event)]] += 1
            continue
        if skipped:
            yield _skipped_text(skipped)
            skipped.clear()
        yield f"{f'#{step.number}':>8} {step.seconds:9.1f} s  {event_text(step.event, step, names)}"
        yield from (f"{INDENT}{line}" for line in lines)
    if skipped:
        yield _skipped_text(skipped)


def replay_json(steps: Iterable[ReplayStep], story: Story) -> Iterator[str]:
    """One JSON object per event of the story. A dataclass is [class name, field, ...], as in the log."""
    names: Names | None = None
    for step in steps:
        indices, names = story.part(step), names or Names(step.after)
        if indices is None and step.same:
            continue
        commands = [{"command": encode(step.commands[n]), "reason": reason(step, n, names)} for n in indices or ()]
        entry = {"number": step.number, "seconds": step.seconds, "event": encode(step.event), "commands": commands}
        entry["changes"] = changes(step, names) if step.error is None else []
        if not step.same:
            entry |= {"logged": [encode(command) for command in step.logged], "error": step.error}
        yield json.dumps(entry)


def _is_quiet(event: Event, story: Story) -> bool:
    what = event.report if isinstance(event, Reported) else event
    return type(what) in COUNTED if story.whole else isinstance(what, ALWAYS_COUNTED)


def _skipped_text(skipped: Counter[str]) -> str:
    return f"{INDENT}({', '.join(plural(count, what) for what, count in skipped.items())})"


def _difference(step: ReplayStep, names: Names) -> Iterator[str]:
    if step.error is not None:
        yield f"EVENT {step.number}: the core fails here: {step.error}"
        yield f"{INDENT}the event was: {event_text(step.event, step, names)}"
        return
    yield f"EVENT {step.number}: the replayed core decides otherwise than the log says"
    for command in step.logged:
        if command not in step.commands:
            yield f"{INDENT}only in the log: {command_text(command, names)} {encode(command)}"
    for command in step.commands:
        if command not in step.logged:
            yield f"{INDENT}only replayed: {command_text(command, names)} {encode(command)}"
    if sorted(map(repr, step.logged)) == sorted(map(repr, step.commands)):
        yield f"{INDENT}the same commands in another order"


# --- the state at one event -------------------------------------------------------------------------------------------


def state_text(steps: Iterable[ReplayStep], number: int, story: Story) -> Iterator[str]:
    """What the core knew after event `number`: what is owed, the fleet, and where each variant's draws are.

    Raises InputError if there is no such event.
    """
    last = 0
    for step in steps:
        if step.number == number:
            return _state(step, story)
        last = step.number
    raise InputError(f"--at {number}: the log has events 1 to {last}")


def _state(step: ReplayStep, story: Story) -> Iterator[str]:
    state, names, counters = step.after, Names(step.after), step.after.counters
    works = state.contexts.values()
    waiting = sum(work.waiting_draws for work in works)
    running = sum(len(run.left) for work in works for run in work.running.values())
    searched = sum(len(check.numbers) for check in state.pending_checks.values())
    yield f"After event {step.number}, {step.seconds:.1f} s after the first: {event_text(step.event, step, names)}"
    yield (
        f"Of {plural(counters.owed, 'owed draw')} {counters.committed} are committed, {counters.failed} given up, "
        f"{running} at engines, {waiting} wait, and {searched} are looked up in the store."
    )
    if state.stopping is not None:
        yield f"The sweep stops: {state.stopping}."
    yield ""
    known = [one for one in state.fleet if story.worker in (None, one.name)]
    yield from _table(["worker", "phase", "holds", "heard", "tasks"], [_worker(one, step, names) for one in known])
    yield ""
    rows = []
    for work in works:
        if story.context_id not in (None, work.context.context_id):
            continue
        patch_id = work.context.patch_id
        grading = "being graded" if work.grading else "to be graded" if work.ungraded else ""
        rows.append(
            [
                work.context.context_id,
                names.patch(patch_id),
                state.patches[patch_id].state,
                str(state.fleet.engines_of.get(patch_id, 0)),
                str(len(work.fresh)),
                str(sum(len(group.numbers) for group in work.retries)),
                str(sum(len(run.left) for run in work.running.values())),
                grading,
            ]
        )
    yield from _table(["context", "variant", "patch", "engines", "new", "to retry", "running", "grades"], rows)


def _worker(known: WorkerState, step: ReplayStep, names: Names) -> list[str]:
    tasks = ", ".join(task_text(task, names) for task in known.tasks.values())
    holds = names.patch(known.patch_id) if known.patch_id is not None else ""
    return [known.name, known.phase, holds, f"{step.now - known.since:.1f} s ago", tasks]


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
