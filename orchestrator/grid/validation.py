"""Error messages for a grid: the location, the rule and the remedy, with the nearest name that would be right."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from eval.spec import nearest
from orchestrator.grid.errors import InputError
from orchestrator.grid.format import GridFile
from orchestrator.grid.source import GridSource, Location


@contextmanager
def located(source: GridSource, location: Location) -> Iterator[None]:
    """Turn a ValueError into an InputError with its location: `with located(source, ("budget",)): check(...)`."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{source.where(location)}: {error}") from error


def fault_message(source: GridSource, fault: dict[str, Any]) -> str:
    """The message for one of pydantic's errors: location, rule and remedy."""
    location = tuple(step for step in fault["loc"] if isinstance(step, int) or _is_key(step))
    if fault["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        close = nearest(str(location[-1]), known)
        return f"{source.where(location)}: unknown key.{close} The keys here are {', '.join(known)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{source.where(location)}: this key is required; add it"
    shown = repr(fault["input"])
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return f"{source.where(location)}: {message[0].lower() + message[1:]}, not {shown}"


def _is_key(step: Any) -> bool:
    # pydantic puts the branches of a union ("ModelEntry", "list[str]") among the steps of a location.
    return isinstance(step, str) and step.isidentifier() and step[:1].islower() and step not in ("str", "list", "none")


def _known_keys(location: Location) -> list[str]:
    """The keys that the format allows at a location."""
    kind: Any = GridFile
    for step in location:
        if isinstance(step, int):
            continue
        kind = _model_of(kind.model_fields[step].annotation) or kind
    return list(kind.model_fields)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _model_of(inner)) is not None:
            return found
    return None
