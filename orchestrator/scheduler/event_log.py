"""The format of an event log: the core's starting state, its events and its commands. Pure: values <-> lines.

A log is JSON lines; the driver compresses them (orchestrator/driver/event_log.py):

    {"format": "prunesweep-events", "version": 1, ..., "start": {...}}    the header: see `encode_start`
    [now, event, [command, ...]]                                          one line per event, in the core's order
    {"end": reason, "events": 812, "logged": 812}                         absent if the driver was killed

A dataclass is written as [class name, field, ...]; the header lists the fields of every class that occurs. `now` is
written with all its digits, so that a core that is fed the same lines decides the same.

A log holds no prompts, traces, answers or golds: the core knows draws by number, and what it only passes on (the golds
of a grading, the payload of a patch) is left out of the header and of the commands.

The codec follows the type annotations. It is not a pydantic TypeAdapter: the dataclasses have no field that tells the
members of a union apart.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cache
from itertools import pairwise
from operator import attrgetter
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Assign, Command, Event
from orchestrator.scheduler.work import ContextWork, LengthEstimator, PatchWork, Policy
from workers.messages import Context, GradeTask, PatchRequest, PruneTask

FORMAT, VERSION = "prunesweep-events", 1
GZIP = 31
"""The window size by which zlib writes and reads gzip files."""

_to_json = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants")).serializer.to_json
"""Four times as fast as json's encoder: with a thousand workers every heartbeat is a line."""


@dataclass(frozen=True)
class LoggedEvent:
    """One line: at `now` the core handled `event` and gave `commands`."""

    now: float
    event: Event
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class LogEnd:
    """The last line: why the sweep ended, how many events there were, and how many of them fit into the log."""

    reason: str
    events: int
    logged: int


# --- lines ------------------------------------------------------------------------------------------------------------


def header_line(start: Mapping[str, Any], about: Mapping[str, str]) -> bytes:
    """The first line. `start`: see `encode_start`; `about`: the sweep's name, the project's version, when it began."""
    return _line({"format": FORMAT, "version": VERSION, **about, "fields": _layout(), "start": start})


def event_line(now: float, event: Event, commands: Sequence[Command]) -> bytes:
    """The line of one event."""
    return _line((now, encode(event), [encode(_bare_command(command)) for command in commands]))


def end_line(end: LogEnd) -> bytes:
    """The last line."""
    return _line({"end": end.reason, "events": end.events, "logged": end.logged})


def read_header(line: bytes) -> dict[str, Any]:
    """The header. Raises ValueError for what is no event log, or one that this version of the project cannot read."""
    header = json.loads(line)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("this is not an event log")
    if header["version"] != VERSION or header["fields"] != json.loads(_to_json(_layout())):
        raise ValueError(f"it was written by version {header.get('project')} of the project; replay it with that one")
    return header


def read_line(line: bytes) -> LoggedEvent | LogEnd:
    """Any other line. Raises ValueError if it is damaged."""
    try:
        value = json.loads(line)
        if isinstance(value, dict):
            return LogEnd(value["end"], value["events"], value["logged"])
        now, event, commands = value
        return LoggedEvent(float(now), decode(Event, event), tuple(decode(Command, command) for command in commands))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"not a line of an event log: {line[:80]!r}") from error


def _line(value: Any) -> bytes:
    try:
        return _to_json(value)
    except ValueError:  # text that is not Unicode: an error that names a file, say
        return json.dumps(value).encode()


def _bare_command(command: Command) -> Command:
    match command:
        case Assign(worker, GradeTask() as task):
            return Assign(worker, replace(task, golds=()))
        case Assign(worker, PruneTask() as task):
            return Assign(worker, replace(task, patches=tuple(map(_bare_request, task.patches))))
    return command


def _bare_request(request: PatchRequest) -> PatchRequest:
    return replace(request, payload={})


# --- the core's starting state ----------------------------------------------------------------------------------------


def encode_start(core: Core) -> dict[str, Any]:
    """What `Core(policy, patches, contexts)` was made of. Call it before the core handles its first event."""
    state = core.state
    estimators = {id(work.lengths): work.lengths for work in state.contexts.values()}
    index = {name: number for number, name in enumerate(estimators)}
    return {
        "policy": encode(state.policy),
        "patches": [encode(replace(work, request=_bare_request(work.request))) for work in state.patches.values()],
        "lengths": [_encode_estimator(estimator) for estimator in estimators.values()],
        "contexts": [
            {
                "context": encode(work.context),
                "order": work.order,
                "lengths": index[id(work.lengths)],
                "seeds": work.seeds,
                "limit": work.limit,
                "stored_tokens": [list(work.stored_tokens), list(work.stored_tokens.values())],
                "ungraded": work.ungraded,
                "fresh": _runs(work.fresh),
            }
            for work in state.contexts.values()
        ],
    }


def decode_start(start: Mapping[str, Any]) -> Core:
    """A new core in the starting state of `encode_start`."""
    estimators = [_decode_estimator(estimator) for estimator in start["lengths"]]
    contexts = [
        ContextWork(
            decode(Context, work["context"]),
            golds=(),
            order=work["order"],
            lengths=estimators[work["lengths"]],
            seeds=work["seeds"],
            limit=work["limit"],
            stored_tokens=dict(zip(*work["stored_tokens"], strict=True)),
            ungraded=work["ungraded"],
            fresh=_numbers(work["fresh"]),
        )
        for work in start["contexts"]
    ]
    patches = [decode(PatchWork, patch) for patch in start["patches"]]
    return Core(decode(Policy, start["policy"]), patches, contexts)


def _encode_estimator(lengths: LengthEstimator) -> dict[str, Any]:
    """Its attributes, as pickle would take them: it has already observed the lengths of the stored traces."""
    return {
        name: {"array": value.typecode, "values": value.tolist()} if isinstance(value, array) else value
        for name, value in vars(lengths).items()
    }


def _decode_estimator(state: Mapping[str, Any]) -> LengthEstimator:
    lengths = LengthEstimator.__new__(LengthEstimator)
    for name, value in state.items():
        setattr(lengths, name, array(value["array"], value["values"]) if isinstance(value, dict) else value)
    return lengths


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Numbers as [first, past the last] of each stretch that rises by one."""
    if not numbers:
        return []
    breaks = [place for place, (one, other) in enumerate(pairwise(numbers), 1) if other != one + 1]
    return [[numbers[a], numbers[b - 1] + 1] for a, b in pairwise([0, *breaks, len(numbers)])]


def _numbers(runs: Iterable[Sequence[int]]) -> Sequence[int]:
    return array("I", (number for first, past in runs for number in range(first, past)))


# --- the codec --------------------------------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """A value as JSON takes it: a dataclass as [class name, field, ...]."""
    writer = _WRITERS.get(value.__class__)
    if writer is not None:
        return writer(value)
    if _is_record(value):
        writer = _WRITERS[value.__class__] = _make_writer(value.__class__)
        return writer(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [encode(item) for item in value]
    return value


def decode(hint: Any, value: Any) -> Any:
    """The value of type `hint` that `encode` turned into `value`."""
    return _reader(hint)(value)


def _is_record(value: Any) -> bool:
    """Whether it is a dataclass or an instance of one."""
    return hasattr(value, "__dataclass_fields__")


_WRITERS: dict[type, Callable[[Any], list[Any]]] = {}


def _make_writer(kind: type) -> Callable[[Any], list[Any]]:
    hints, names = get_type_hints(kind), [field.name for field in fields(kind)]
    take = attrgetter("__class__.__name__", *names) if names else lambda _: (kind.__name__,)
    nested = [
        (place, list if get_origin(hints[name]) is Sequence and _is_plain(*get_args(hints[name])) else encode)
        for place, name in enumerate(names, 1)
        if not _is_plain(hints[name])
    ]

    def write(value: Any) -> list[Any]:
        row = [*take(value)]
        for place, convert in nested:
            row[place] = convert(row[place])
        return row

    return write


def _is_plain(hint: Any) -> bool:
    """Whether json writes every value of this type as it is."""
    if get_origin(hint) is tuple:
        return all(argument is ... or _is_plain(argument) for argument in get_args(hint))
    return hint in (str, int, float, bool) or (isinstance(hint, type) and issubclass(hint, str))


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if _is_record(hint):
        readers = [_reader(get_type_hints(hint)[field.name]) for field in fields(hint)]
        return lambda row: hint(*(read(item) for read, item in zip(readers, row[1:], strict=True)))
    if origin in (Union, UnionType):
        tagged = {kind.__name__: _reader(kind) for kind in arguments if _is_record(kind)}
        if tagged:
            return lambda row: None if row is None else tagged[row[0]](row)
        (only,) = (_reader(kind) for kind in arguments if kind is not type(None))
        return lambda item: None if item is None else only(item)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if origin in (tuple, Sequence, frozenset):
        read_item, made = _reader(arguments[0]), frozenset if origin is frozenset else tuple
        return lambda items: made(map(read_item, items))
    if origin is Mapping:
        read_key, read_value = map(_reader, arguments)
        return lambda items: {read_key(key): read_value(value) for key, value in items.items()}
    if hint is int:
        return int  # also the key of a mapping, which JSON makes a string
    assert hint in (str, float, bool, Any) or origin is Literal, f"the codec does not know {hint}"
    return lambda item: item


@cache
def _layout() -> dict[str, list[str]]:
    """The fields of every dataclass that can occur in a log."""
    found: dict[str, list[str]] = {}

    def visit(hint: Any) -> None:
        if _is_record(hint) and hint.__name__ not in found:
            found[hint.__name__] = [field.name for field in fields(hint)]
            hints = get_type_hints(hint)
            for name in found[hint.__name__]:
                visit(hints[name])
        for argument in get_args(hint):
            visit(argument)

    for root in (Event, Command, Policy, PatchWork, Context):
        visit(root)
    return found
