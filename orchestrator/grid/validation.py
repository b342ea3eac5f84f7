"""How a fault in a grid is told: the place, the rule and the remedy, with the nearest name that would be right."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from eval.spec import nearest
from orchestrator.grid.errors import InputError
from orchestrator.grid.format import GridFile
from orchestrator.grid.source import Location, Source


@contextmanager
def located(source: Source, location: Location) -> Iterator[None]:
    """Turn a ValueError into an InputError that names the location: `with located(source, ("budget",)): check(...)`."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{source.where(location)}: {error}") from error


def explain(source: Source, fault: dict[str, Any]) -> str:
    """One of pydantic's complaints as place, rule and remedy."""
    place = tuple(step for step in fault["loc"] if isinstance(step, int) or _is_key(step))
    if fault["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        return (
            f"{source.where(place)}: unknown key.{nearest(str(place[-1]), known)} The keys here are {', '.join(known)}"
        )
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{source.where(place)}: this key is required; add it"
    shown = repr(fault["input"])
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return f"{source.where(place)}: {message[0].lower() + message[1:]}, not {shown}"


def _is_key(step: Any) -> bool:
    # pydantic names the branches of a union ("ModelEntry", "list[str]") among the steps of a place.
    return isinstance(step, str) and step.isidentifier() and step[:1].islower() and step not in ("str", "list", "none")


def _known_keys(place: Location) -> list[str]:
    """The keys that may stand at a place of the file."""
    kind: Any = GridFile
    for step in place:
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
