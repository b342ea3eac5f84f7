"""How a fault in a grid is told: the place, the rule and the remedy, with the nearest name that would be right."""

from typing import Any

from pydantic import BaseModel

from orchestrator.grid.errors import GridError, nearest
from orchestrator.grid.format import GridFile
from orchestrator.grid.source import Place, Source


class At:
    """Puts a place in front of a ValueError and makes it a GridError: `with At(source, ("budget",)): check(...)`."""

    def __init__(self, source: Source, place: Place) -> None:
        self._source, self._place = source, place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise GridError(f"{self._source.where(self._place)}: {error}") from error


def explain(source: Source, fault: dict[str, Any]) -> str:
    """One of pydantic's complaints as place, rule and remedy."""
    place = tuple(step for step in fault["loc"] if isinstance(step, int) or _is_key(step))
    if fault["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        return (
            f"{source.where(place)}: unknown key{nearest(str(place[-1]), known)} The keys here are {', '.join(known)}"
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


def _known_keys(place: Place) -> list[str]:
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
