"""The state of a worker has one writer."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from orchestrator.scheduler import transitions
from orchestrator.scheduler.fleet import WorkerState

FOLDER = Path(transitions.__file__).parent
FIELDS = {field.name for field in fields(WorkerState)}
WRITERS = {"transitions.py", "fleet.py"}
"""Fleet sets a worker's phase and patch, since it indexes them; only transitions.py may ask it to."""

CHANGES = {"set_phase", "set_patch", "add", "remove", "pop", "clear", "update", "setdefault"}
"""Methods that change a fleet, or a worker's tasks."""


def writes(code: str) -> list[str]:
    """Lines that assign a field of `WorkerState`, or that change the fleet or a worker's tasks by a method."""
    found = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()) if name in FIELDS:
                found.append(node)
            case ast.Subscript(value=ast.Attribute(attr="tasks"), ctx=ast.Store() | ast.Del()):
                found.append(node)
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="tasks" | "fleet"), attr=name)) if (
                name in CHANGES
            ):
                found.append(node)
    return [f"{node.lineno}: {ast.unparse(node)}" for node in found]


@pytest.mark.parametrize("name", sorted(file.name for file in FOLDER.glob("*.py") if file.name not in WRITERS))
def test_only_transitions_writes_the_state_of_a_worker(name: str) -> None:
    assert writes((FOLDER / name).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "worker.since = now",
        "worker.since, other = now, 1",
        "engine.tokens += 1",
        "worker.tasks[task_id] = task",
        "del worker.tasks[task_id]",
        "worker.tasks.pop(task_id)",
        "state.fleet.set_phase(worker, phase)",
        "self.state.fleet.remove(worker)",
    ],
)
def test_each_way_to_write_it_is_noticed(line: str) -> None:
    assert len(writes(line)) == 1
