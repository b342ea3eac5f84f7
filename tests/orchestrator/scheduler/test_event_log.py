"""The event log's format: every value comes back as it was, and a core that is rebuilt from it decides the same."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.event_log import (
    LogEnd,
    LoggedEvent,
    decode_start,
    encode_start,
    end_line,
    event_line,
    header_line,
    read_header,
    read_line,
)
from orchestrator.scheduler.events import (
    Assign,
    Command,
    Event,
    FindMissing,
    Finish,
    Kill,
    NodeDraining,
    RecordFailures,
    Reported,
    ShardNumbers,
    StartWorker,
    Tick,
    WorkerLost,
)
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, Policy
from pruning.spec import CalibrationSpec, PruneSpec
from tests.support.builders import SHORTENED, WHOLE, make_context, make_core, make_patch, make_work
from tests.support.core_world import World
from workers.failure import Failure, FailureKind
from workers.messages import Gold, GradeTask, PatchRequest, PruneTask, Report

NUMBERS = st.floats(allow_nan=False)
ABOUT = {"sweep": "s", "project": "0", "started": "now"}


class LoggedCore(Core):
    """A core that logs what it is told and decides."""

    def __init__(self, policy: Policy, patches: list[PatchWork], contexts: list[ContextWork]) -> None:
        super().__init__(policy, patches, contexts)
        self.lines: list[bytes] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        commands = super().handle(event, now)
        self.lines.append(event_line(now, event, commands))
        return commands


def fed(start: dict[str, Any], events: list[LoggedEvent]) -> list[tuple[Command, ...]]:
    """What a core that starts like this decides about these events."""
    core = decode_start(start)
    return [tuple(core.handle(one.event, one.now)) for one in events]


@given(NUMBERS, st.from_type(Event) | st.builds(Reported, st.text(), st.from_type(Report)))
def test_every_event_comes_back_as_it_was(now: float, event: Event) -> None:
    line = event_line(now, event, ())
    read = read_line(line)
    assert isinstance(read, LoggedEvent)
    assert read == LoggedEvent(now, event, ()) or b"NaN" in line
    assert event_line(read.now, read.event, ()) == line


SHARDS = st.builds(ShardNumbers, st.text(), st.text(), st.lists(st.integers(0, 10**6)).map(tuple))


@given(
    st.from_type(StartWorker | RecordFailures | Kill | Finish)
    | st.builds(FindMissing, SHARDS)
    | st.builds(Assign, st.text(), SHARDS)
)
def test_commands_come_back_as_they_were(command: Command) -> None:
    read = read_line(event_line(0.0, Tick(), [command]))
    assert isinstance(read, LoggedEvent)
    assert read.commands == (command,)


def test_a_value_says_which_of_its_unions_classes_it_is_of() -> None:
    assert json.loads(
        event_line(1.5, WorkerLost("engine-1", Failure(FailureKind.HANG, "silent")), [Kill("e", Failure("k", "c"))])
    )[1] == ["WorkerLost", "engine-1", ["Failure", "hang", "silent", ""], ""]


def test_text_that_is_not_unicode_is_logged_all_the_same() -> None:
    draining = NodeDraining(("engine-1",), "file \udc80 is gone")
    read = read_line(event_line(0.0, draining, ()))
    assert isinstance(read, LoggedEvent)
    assert read.event == draining


def test_answers_and_payloads_are_in_no_line() -> None:
    gold = Gold("p", "g", "SECRET", "math")
    work = replace(make_work(make_context("c"), 2), golds=(gold,))
    request = PatchRequest("patch", PruneSpec("wanda"), {"data": "SECRET"})
    core = Core(Policy(), [replace(make_patch(), request=request)], [work])
    commands = [Assign("g", GradeTask("t", "c", "a", (gold,))), Assign("p", PruneTask("t", "model", (request,)))]
    lines = header_line(encode_start(core), ABOUT) + event_line(0.0, Tick(), commands)
    assert b"SECRET" not in lines
    assert b"wanda" in lines


def test_rebuilt_core_owes_what_the_first_did() -> None:
    works = [
        make_work(make_context(f"c{n}", f"p{n}", shape), 9, n) for n, shape in enumerate((WHOLE, SHORTENED, WHOLE))
    ]
    works[1].fresh, works[1].stored_tokens, works[1].ungraded = (1, 2, 3, 7, 8), {3: 40, 7: 2}, True
    works[2].lengths = works[0].lengths  # of one model
    works[0].lengths.observe(3, 1200)
    spec = PruneSpec("wanda", sparsity=0.5, calibration=CalibrationSpec("c4"))
    request = PatchRequest("p1", spec, {})
    core = Core(
        Policy(engines=3, backoff_seconds=2.5),
        [make_patch("p0"), replace(make_patch("p1", PatchState.OWED), request=request), make_patch("p2")],
        works,
    )
    again = decode_start(read_header(header_line(encode_start(core), ABOUT))["start"])
    assert again.state.policy == core.state.policy
    assert again.state.patches == core.state.patches
    assert again.state.counters == core.state.counters
    rebuilt = list(again.state.contexts.values())
    for old, new in zip(works, rebuilt, strict=True):
        assert vars(new.lengths) == vars(old.lengths)
        plain = {
            name: value for name, value in vars(old).items() if name not in ("lengths", "fresh", "golds", "_sampled")
        }
        assert {name: vars(new)[name] for name in plain} == plain
        assert list(new.fresh) == list(old.fresh)
    assert rebuilt[0].lengths is rebuilt[2].lengths
    assert rebuilt[0].lengths is not rebuilt[1].lengths


def test_rebuilt_core_decides_the_same_in_a_world_with_faults() -> None:
    works = [make_work(make_context(f"c{n}", f"p{n}"), 9, n) for n in range(3)]
    owed = [make_patch(name, PatchState.OWED, passes=("activations",)) for name in ("p0", "p2")]
    patches = [owed[0], make_patch("p1"), owed[1]]
    core = LoggedCore(Policy(engines=2, slots=2, smallest_shard=2, largest_shard=4), patches, works)
    start = encode_start(core)
    world = World(core, dict.fromkeys(("p0", "p1", "p2"), WHOLE), {("c0", 4)}, {("c1", 2)}, {"c2"}, set())
    world.tell(Tick())
    world.recover()
    assert set(world.failed) == {("c0", 4), ("c1", 2)} | {("c2", number) for number in range(9)}
    events = [line for line in map(read_line, core.lines) if isinstance(line, LoggedEvent)]
    assert fed(json.loads(json.dumps(start)), events) == [one.commands for one in events]


def test_last_line_comes_back_as_it_was() -> None:
    end = LogEnd("displaced", 12, 10)
    assert read_line(end_line(end)) == end


@pytest.mark.parametrize("line", [b"{}", b"[]", b'{"format": "other"}', b"[1, 2"])
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an event log|Expecting"):
        read_header(line)


def test_log_of_another_version_of_the_classes_is_refused_with_that_version() -> None:
    header = json.loads(header_line(encode_start(make_core(2)), ABOUT | {"project": "0.0.7"}))
    header["fields"]["Heartbeat"].append("temperature")
    with pytest.raises(ValueError, match=r"version 0\.0\.7 of the project; replay it with that one"):
        read_header(json.dumps(header).encode())


@pytest.mark.parametrize("line", [b"[1.0]", b'[1.0, ["Unknown"], []]', b'[1.0, ["Tick", 3], []]', b'{"events": 3}'])
def test_damaged_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a line of an event log"):
        read_line(line)
