"""YAML with line numbers: plain values, and the line of each. Refuses duplicate keys."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.grid.errors import InputError

Location = tuple[str | int, ...]
"""Keys and indices from the top of the document to a value."""


@dataclass(frozen=True)
class GridSource:
    """A grid as it was written: YAML parsed into plain values, or the options of a command line."""

    name: str
    """The file's path; error messages begin with it."""
    value: Any
    lines: dict[Location, int]
    """Location -> line number, from 1. Empty where there is no file."""

    def where(self, location: Location) -> str:
        """`grid.yaml:12: variants[1].sparsity`. A location that is not in the file gets its parent's line."""
        known = location
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known, 1)
        return f"{self.name}:{line}: {location_text(location)}" if location else f"{self.name}:{line}"


def location_text(location: Location) -> str:
    """`variants[1].sparsity` for ("variants", 1, "sparsity")."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_yaml(path: Path) -> GridSource:
    """Parse a YAML file. Raises InputError for a missing file, bad syntax, or a duplicate key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a grid, such as examples/tiny/grid.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[Location, int] = {}
        if node is not None:
            _record_lines(node, (), lines, str(path))
        value = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else 1
        raise InputError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    return GridSource(str(path), value, lines)


def _record_lines(node: yaml.Node, location: Location, lines: dict[Location, int], name: str) -> None:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _record_lines(item, (*location, index), lines, name)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[Hashable, int] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise InputError(
                    f"{name}:{line}: the key {location_text((*location, key.value))} appears twice, first on line "
                    f"{seen[key.value]}; keep one of the two"
                )
            seen[key.value] = line
            lines[(*location, key.value)] = line
            _record_lines(item, (*location, key.value), lines, name)
