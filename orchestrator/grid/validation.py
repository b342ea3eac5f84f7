"""Error messages for a grid: the location, the rule and the remedy, with the nearest name that would be right."""

from collections.abc import Iterator, Mapping, Sequence
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


def fault_messages(source: GridSource, faults: Sequence[Mapping[str, Any]]) -> list[str]:
    """A message for each of pydantic's errors. Where a text or a mapping may stand and a mapping does, only the faults
    of the mapping are told.
    """
    deeper = {fault["loc"][:length] for fault in faults for length in range(len(fault["loc"]) - 1)}
    told = [fault for fault in faults if not (fault["type"] == "string_type" and _other_branch(fault, deeper))]
    return [_fault_message(source, dict(fault)) for fault in told]


def _other_branch(fault: Mapping[str, Any], deeper: set[tuple[Any, ...]]) -> bool:
    return fault["loc"][-1] == "str" and isinstance(fault["input"], dict) and fault["loc"][:-1] in deeper


def _fault_message(source: GridSource, fault: dict[str, Any]) -> str:
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
