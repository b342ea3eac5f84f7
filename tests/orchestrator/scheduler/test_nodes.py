"""Machines that cannot read what the driver read: avoided, never blamed on draws, and tried once each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Command,
    Event,
    FindMissing,
    Kill,
    Reported,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
    Tick,
    WorkerLost,
    WorkerReady,
)
from orchestrator.scheduler.work import PatchState, Policy
from tests.support.builders import Hand, committed, make_context, make_patch, make_work, of_kind, ready
from tests.support.core_steps import missing
from workers.failure import Failure, FailureKind
from workers.messages import (
    Committed,
    Graded,
    GradeTask,
    PatchFailed,
    PatchMade,
    PruneTask,
    Shape,
    TaskEnded,
    TaskFailed,
    WorkerInfo,
)

PASSES = st.sampled_from([(), ("activations",)])
RETIRED = Failure(FailureKind.RETIRED, "closed as asked")


@dataclass
class Cluster:
    """Machines with devices; each lacks some models, or some patches' calibration data. A worker waits for a device,
    forever if need be."""

    devices: Mapping[str, int]
    lacks: Mapping[str, set[str]]
    running: dict[str, tuple[StartWorker, str]] = field(default_factory=dict)
    """Worker -> how it was started, and its machine."""
    pending: list[StartWorker] = field(default_factory=list)
    other_store: frozenset[str] = frozenset()
    one_at_a_time: bool = True
    """At most one worker starts at a time, so no machine may be tried twice."""
    names_patches: bool = True
    """A pruner says which patch's data its machine lacks, and makes the others."""
    tried: list[tuple[str, str]] = field(default_factory=list)
    """(machine, model) of everything that failed because of a machine."""

    def failure(self, node: str, model: str) -> Failure:
        assert not self.one_at_a_time or (node, model) not in self.tried, "a machine is tried once"
        self.tried.append((node, model))
        return Failure(FailureKind.SOURCE, f"{node}: {model} is not there")

    def perform(self, command: Command) -> list[Event]:
        match command:
            case StartWorker(worker, avoid=avoid) if set(avoid) >= self.devices.keys():
                return [WorkerLost(worker, Failure(FailureKind.SOURCE, "no machine is left"))]
            case StartWorker():
                self.pending.append(command)
            case Assign(worker, ShardNumbers() as shard):
                return reports(worker, committed(shard, shard.numbers))
            case Assign(worker, PruneTask() as task):
                return self.prune(worker, task)
            case Assign(worker, GradeTask() as task):
                return reports(worker, Graded(task.task_id, task.context_id, 1))
            case FindMissing(shard):
                return [missing(shard, shard.numbers)]
            case Retire(worker) | Kill(worker):
                self.pending = [start for start in self.pending if start.worker != worker]
                self.running.pop(worker, None)
                return [WorkerLost(worker, RETIRED)]
        return []

    def prune(self, worker: str, task: PruneTask) -> list[Event]:
        node, events = self.running[worker][1], list[Event]()
        if task.model in self.lacks[node]:
            return [Reported(worker, TaskFailed(task.task_id, self.failure(node, task.model)))]
        for patch_id in [request.patch_id for request in task.patches]:
            if patch_id not in self.lacks[node]:
                events.append(Reported(worker, PatchMade(task.task_id, patch_id, 0.5, 1.0)))
                continue
            failure = replace(self.failure(node, patch_id), kind=FailureKind.DATA)
            if not self.names_patches:
                return [*events, Reported(worker, TaskFailed(task.task_id, failure))]
            events.append(Reported(worker, PatchFailed(task.task_id, patch_id, failure)))
        return [*events, Reported(worker, TaskEnded(task.task_id))]

    def place(self) -> list[Event]:
        """Start what is pending on the first machine with a free device that it need not avoid."""
        events: list[Event] = []
        for start in list(self.pending):
            used = [node for other, node in self.running.values() if other.role is not Role.GRADE]
            free = [n for n, d in self.devices.items() if d > used.count(n) or start.role is Role.GRADE]
            nodes = [node for node in free if node not in start.avoid]
            if not nodes:
                continue
            self.pending.remove(start)
            node, model = nodes[0], start.shape.model if start.shape is not None else ""
            if node in self.other_store:
                events.append(WorkerLost(start.worker, Failure(FailureKind.OTHER_STORE, f"{node}: other store"), node))
            elif model in self.lacks[node]:
                events.append(WorkerLost(start.worker, self.failure(node, model), node))
            else:
                self.running[start.worker] = (start, node)
                events.append(WorkerReady(start.worker, WorkerInfo(start.worker, node, 1), node))
        return events

    def serve(self, hand: Hand, rounds: int = 400) -> None:
        todo = hand(Tick())
        for _ in range(rounds):
            if hand.core.finished is not None:
                return
            events = [event for command in todo for event in self.perform(command)] + self.place()
            todo = [command for event in events or [Tick()] for command in hand(event, after=1.0)]
        raise AssertionError(f"no end: {self.pending} {self.running} {list(hand.core.state.fleet)}")


def reports(worker: str, what: Committed | PatchMade | Graded) -> list[Event]:
    """What a worker did, and that its task has ended."""
    return [Reported(worker, what), Reported(worker, TaskEnded(what.task_id))]


def owing(
    models: Mapping[str, PatchState], nodes: Mapping[str, int], engines: int = 1, passes: tuple[str, ...] = ()
) -> Hand:
    """A core that owes two patches, which share `passes`, and 20 draws of each for every model, on these machines."""
    works, patches = [], []
    for model, state in models.items():
        for number in range(2):
            name = f"{model}-{number}"
            works.append(make_work(make_context(name, name, Shape(model, 4, "bfloat16")), 20, len(works)))
            patches.append(make_patch(name, state, "magnitude", passes, model))
    slots = sum(nodes.values())
    policy = Policy(engines=engines, slots=slots, nodes=nodes, smallest_shard=4, largest_shard=8)
    return Hand(Core(policy, patches, works))


def test_machine_without_the_models_folder_costs_no_draw_where_another_has_it() -> None:
    hand = owing({"a": PatchState.OWED}, {"bad": 1, "good": 1})
    cluster = Cluster({"bad": 1, "good": 1}, {"bad": {"a"}, "good": set()})
    cluster.serve(hand)
    assert hand.core.finished == "done"
    assert hand.core.state.counters.committed == 40
    assert not hand.failures()
    assert not [kill for kill in of_kind(hand.said, Kill) if kill.failure.kind is FailureKind.HANG]
    starts = of_kind(hand.said, StartWorker)
    assert starts[-1].avoid == ("bad",)


@pytest.mark.parametrize("state", [PatchState.OWED, PatchState.STORED])
def test_machines_are_tried_until_one_has_the_model_however_many_lack_it(state: PatchState) -> None:
    """Their failures add up neither to a role that does not come up, nor to a patch that cannot be made."""
    nodes = {f"bad-{n}": 1 for n in range(9)} | {"good": 1}
    hand = owing({"a": state}, nodes)
    cluster = Cluster(nodes, {node: {"a"} for node in nodes if node != "good"} | {"good": set()})
    cluster.one_at_a_time = False  # pruners start together
    cluster.serve(hand)
    assert hand.core.finished == "done"
    assert not hand.failures()


def test_patch_is_tried_at_once_on_the_next_machine_and_no_attempt_is_counted() -> None:
    nodes = {f"n{n}": 1 for n in range(6)}
    policy = Policy(engines=1, slots=1, nodes=nodes, attempts=2)
    hand = Hand(Core(policy, [make_patch(state=PatchState.OWED)], [make_work(make_context("c"), 20)]))
    commands = hand(Tick())
    for number, node in enumerate(nodes):
        (start,) = [one for one in of_kind(commands, StartWorker) if one.role is not Role.GRADE]
        assert (start.role, start.avoid) == (Role.PRUNE, tuple(nodes)[:number])
        (given,) = of_kind(hand(replace(ready(start.worker), node=node)), Assign)
        failure = Failure(FailureKind.SOURCE, f"{node}: not there")
        commands = hand(Reported(start.worker, TaskFailed(given.task.task_id, failure)))
        assert of_kind(commands, Retire) == [Retire(start.worker)]
        commands = hand(WorkerLost(start.worker, RETIRED))
    assert hand.core.state.patches["patch"].attempts == 0
    assert not hand.failures()


def test_model_that_no_machine_has_stays_owed_and_the_others_are_done_first() -> None:
    hand = owing({"a": PatchState.OWED, "b": PatchState.OWED}, {"one": 1, "two": 1})
    cluster = Cluster({"one": 1, "two": 1}, {"one": {"a"}, "two": {"a"}})
    cluster.serve(hand)
    assert hand.core.finished == "no machine can do the work of a: two: a is not there"
    assert {name: work.waiting_draws for name, work in hand.core.state.contexts.items()} == {
        "a-0": 20, "a-1": 20, "b-0": 0, "b-1": 0,
    }  # fmt: skip
    assert not hand.failures()
    assert cluster.tried == [("one", "a"), ("two", "a")]


@pytest.mark.parametrize("passes", [(), ("activations",)])
@pytest.mark.parametrize("names_patches", [True, False])
def test_patch_whose_data_no_machine_has_stays_owed_and_the_models_other_patches_are_done(
    passes: tuple[str, ...], names_patches: bool
) -> None:
    nodes = {"one": 1, "two": 1}
    hand = owing({"a": PatchState.OWED}, nodes, passes=passes)
    cluster = Cluster(nodes, {node: {"a-1"} for node in nodes}, one_at_a_time=False, names_patches=names_patches)
    cluster.serve(hand)
    assert str(hand.core.finished).startswith("no machine can do the work of a-1: ")
    assert "a-1 is not there" in str(hand.core.finished)
    assert {name: work.waiting_draws for name, work in hand.core.state.contexts.items()} == {"a-0": 0, "a-1": 20}
    assert not hand.failures()


def test_only_machine_that_lacks_its_model_ends_the_sweep_with_the_cause() -> None:
    """A backend of one machine gives it no name."""
    hand = Hand(Core(Policy(), [make_patch(state=PatchState.OWED)], [make_work(make_context("c"), 1200)]))
    (start,) = [s for s in of_kind(hand(Tick()), StartWorker) if s.role is Role.PRUNE]
    (given,) = of_kind(hand(ready(start.worker)), Assign)
    hand(Reported(start.worker, TaskFailed(given.task.task_id, Failure(FailureKind.SOURCE, "host: no such folder"))))
    for worker in list(hand.core.state.fleet):
        hand(WorkerLost(worker.name, RETIRED))
    assert hand.core.finished == "no machine can do the work of model: host: no such folder"
    assert not hand.failures()
    assert hand.core.state.contexts["c"].waiting_draws == 1200


def test_machine_with_another_store_does_nothing_at_all() -> None:
    nodes = {"bad": 1, "good": 1}
    hand = owing({"a": PatchState.OWED, "b": PatchState.OWED}, nodes)
    cluster = Cluster(nodes, {"bad": set(), "good": set()}, other_store=frozenset({"bad"}))
    cluster.serve(hand)
    assert hand.core.finished == "done"
    assert not hand.failures()


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_draw_is_made_that_some_machine_can_make_and_none_is_given_up(data: st.DataObject) -> None:
    models = data.draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["owed", "stored"]), min_size=1))
    nodes = data.draw(st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), st.integers(1, 2), min_size=1))
    names = st.sampled_from(["a", "b", "c", "a-0", "b-0", "b-1", "c-1"])
    lacks = {node: data.draw(st.sets(names), node) for node in nodes}
    states, passes = {model: PatchState(state) for model, state in models.items()}, data.draw(PASSES)
    hand = owing(states, nodes, data.draw(st.integers(1, 4)), passes)
    Cluster(nodes, lacks, one_at_a_time=False, names_patches=data.draw(st.booleans())).serve(hand, rounds=4000)
    assert not hand.failures()
    if len(models) == 1:
        assert not [kill for kill in of_kind(hand.said, Kill) if kill.failure.kind is FailureKind.HANG], "none pends"
    contexts = hand.core.state.contexts
    for name, work in contexts.items():
        model = work.context.shape.model
        capable = [node for node in nodes if model not in lacks[node]]
        makes = models[model] == "stored" or any(name not in lacks[node] for node in capable)
        assert work.waiting_draws == (0 if capable and makes else 20)
    assert (hand.core.finished == "done") == (not any(work.waiting_draws for work in contexts.values()))
