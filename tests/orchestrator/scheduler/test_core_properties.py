"""Promise emit-everything, against a world that does its worst: `Core.handle` driven by hypothesis.

The world starts workers or fails to, commits draws and loses, delays or repeats the messages about them,
crashes and hangs before and after commits, fails patches, variants and gradings. After every step no draw is
in two places and none is gone; when the world is well again, the sweep ends by itself with every owed draw
committed or failed exactly once.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import NodeDraining, Reported, Role, StopRequested, Tick, WorkerLost
from orchestrator.scheduler.fleet import Phase
from orchestrator.scheduler.work import PatchState, Policy
from tests.support.builders import SHORTENED, WHOLE, make_context, make_patch, make_work
from tests.support.core_world import DrawKey, Process, World
from workers.failure import Failure, FailureKind
from workers.messages import Heartbeat, PruneTask

POLICIES = st.builds(
    Policy,
    engines=st.integers(1, 3),
    slots=st.integers(1, 3),
    attempts=st.integers(1, 3),
    start_seconds=st.just(300.0),
    silence_seconds=st.just(200.0),
    prune_seconds=st.just(400.0),
    backoff_seconds=st.just(5.0),
    failed_starts=st.just(3),
    largest_pruning=st.integers(1, 4),
    smallest_shard=st.integers(1, 3),
    largest_shard=st.integers(3, 6),
)
PATCHES = st.lists(
    st.tuples(
        st.sampled_from([PatchState.STORED, *[PatchState.OWED] * 2]),
        st.booleans(),
        st.sampled_from([(), ("a",), ("a",), ("a", "b"), ("b",)]),
    ),
    min_size=1,
    max_size=6,
)
CONTEXTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.booleans()), min_size=1, max_size=7)
RARE = st.integers(0, 9).map(lambda number: number == 0)


class Sweep(RuleBasedStateMachine):
    """A sweep and a world that works against it."""

    world: World

    @initialize(policy=POLICIES, patches=PATCHES, contexts=CONTEXTS, data=st.data())
    def begin(
        self,
        policy: Policy,
        patches: list[tuple[PatchState, bool, tuple[str, ...]]],
        contexts: list[tuple[int, int, bool]],
        data: st.DataObject,
    ) -> None:
        shapes = {f"patch{n}": WHOLE if whole else SHORTENED for n, (_, whole, _) in enumerate(patches)}
        works, keys = [], []
        for order, (number, draws, ungraded) in enumerate(contexts):
            patch_id = f"patch{number % len(patches)}"
            context = make_context(f"c{order}", patch_id, shapes[patch_id])
            works.append(make_work(context, draws, order))
            works[-1].ungraded = ungraded
            keys += [(context.context_id, number) for number in range(draws)]
        owed = [make_patch(f"patch{n}", state, passes=passes) for n, (state, _, passes) in enumerate(patches)]
        core = Core(policy, owed, works)
        self.world = World(
            core,
            shapes,
            poison={k for k in keys if data.draw(RARE, "poison")},
            refused={k for k in keys if data.draw(RARE, "refused")},
            nan={w.context.context_id for w in works if data.draw(RARE, "nan")},
            cursed={patch for patch in shapes if data.draw(RARE, "cursed")},
            nan_draws=frozenset(k for k in keys if data.draw(RARE, "nan draw")),
            names_nan=data.draw(st.booleans(), "NaN draws are named"),
            spoilt=frozenset(patch for patch in shapes if data.draw(RARE, "spoilt")),
        )
        self.world.tell(Tick())

    def processes(self) -> list[Process]:
        return [p for p in self.world.processes.values() if p.phase != "dead"]

    def pick(self, data: st.DataObject, processes: list[Process]) -> Process:
        return processes[data.draw(st.integers(0, len(processes) - 1), "process")]

    def talkers(self) -> list[Process]:
        return [p for p in self.world.processes.values() if p.outbox]

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 60.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tell(Tick(), after=seconds)

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), draws=st.integers(1, 4))
    def a_worker_works(self, data: st.DataObject, draws: int) -> None:
        process = self.pick(data, self.processes())
        if process.phase != "hung":
            self.world.advance(process, draws)

    @rule(draws=st.integers(1, 3))
    def everything_gets_on(self, draws: int) -> None:
        for process in self.processes():
            if process.phase != "hung":
                self.world.advance(process, draws)
        while self.world.recounts:
            self.world.tell(self.world.recounts.popleft())
        for process in self.talkers():
            while process.outbox and not self.world.finishes:
                self.world.tell(process.outbox.popleft())

    @precondition(lambda self: self.talkers())
    @rule(data=st.data())
    def a_message_arrives(self, data: st.DataObject) -> None:
        self.world.tell(self.pick(data, self.talkers()).outbox.popleft())

    @precondition(lambda self: self.talkers())
    @rule(data=st.data())
    def a_message_is_lost(self, data: st.DataObject) -> None:
        outbox = self.pick(data, self.talkers()).outbox
        if not isinstance(outbox[0], WorkerLost):  # the backend itself says this one
            outbox.popleft()

    @precondition(lambda self: self.world.heard)
    @rule(data=st.data())
    def a_message_comes_twice(self, data: st.DataObject) -> None:
        said = [event for event in self.world.heard if not isinstance(event, Tick | StopRequested)]
        if said:
            self.world.tell(said[data.draw(st.integers(0, len(said) - 1), "again")])

    @precondition(lambda self: self.world.recounts)
    @rule()
    def a_recount_arrives(self) -> None:
        self.world.tell(self.world.recounts.popleft())

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), committing=st.booleans())
    def a_worker_crashes(self, data: st.DataObject, committing: bool) -> None:
        process = self.pick(data, self.processes())
        said = len(process.outbox)
        if committing and process.phase == "well":
            self.world.advance(process, 2)
            while len(process.outbox) > said:
                process.outbox.pop()  # it did, and died before it could say so
        process.die()

    @precondition(lambda self: self.processes())
    @rule(data=st.data())
    def a_worker_hangs(self, data: st.DataObject) -> None:
        process = self.pick(data, self.processes())
        process.phase = "hung"

    @precondition(lambda self: self.processes())
    @rule(data=st.data())
    def a_worker_beats(self, data: st.DataObject) -> None:
        process = self.pick(data, self.processes())
        if process.tasks and process.phase == "well":
            process.say(Reported(process.name, Heartbeat(process.tasks[0].task_id, 1)))

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), kind=st.sampled_from([FailureKind.STORE, *[FailureKind.OUT_OF_MEMORY] * 3]))
    def a_task_fails(self, data: st.DataObject, kind: FailureKind) -> None:
        process = self.pick(data, self.processes())
        if process.tasks and process.phase == "well":
            process.end_task(Failure(kind, "not this time"))

    @precondition(lambda self: len(self.processes()) > 1)
    @rule()
    def a_node_leaves(self) -> None:
        for process in self.processes():
            process.die(Failure(FailureKind.WORKER_LOST, "the node is gone"))

    @precondition(lambda self: len(self.world.core.state.fleet) > 0)
    @rule(data=st.data())
    def a_machine_will_be_taken_away(self, data: st.DataObject) -> None:
        names = [worker.name for worker in self.world.core.state.fleet]
        self.world.tell(NodeDraining((data.draw(st.sampled_from(names), "leaving"),), "spot notice"))

    @precondition(lambda self: self.world.core.state.counters.committed > 2)
    @rule(asked=RARE)
    def somebody_stops_it(self, asked: bool) -> None:
        if asked:
            self.world.tell(StopRequested("stopped by SIGTERM"))

    @invariant()
    def every_draw_is_in_one_place(self) -> None:
        state = self.world.core.state
        places: Counter[DrawKey] = Counter(self.world.failed)
        for work in state.contexts.values():
            numbers = [*work.fresh, *(n for group in work.retries for n in group.numbers)]
            numbers += [n for shard in work.running.values() for n in shard.left]
            places.update((work.context.context_id, number) for number in numbers)
        for check in state.pending_checks.values():
            places.update((check.context_id, number) for number in check.numbers)
        assert max(places.values(), default=1) == 1
        assert state.counters.failed == sum(self.world.failed.values())
        assert state.counters.committed + places.total() == state.counters.owed
        assert self.world.owed - places.keys() <= self.world.store, "a draw is gone"

    @invariant()
    def what_was_lost_before_travels_alone(self) -> None:
        for worker in self.world.core.state.fleet:
            works = self.world.core.state.contexts.values()
            shards = [work.running[task] for work in works for task in worker.tasks if task in work.running]
            assert len(shards) <= 1 or not any(shard.losses for shard in shards)

    @invariant()
    def a_patch_is_in_the_making_in_one_task_and_given_up_for_its_own_fault_only(self) -> None:
        state = self.world.core.state
        tasks = {name: task for worker in state.fleet for name, task in worker.tasks.items()}
        for patch in state.patches.values():
            assert (patch.state is PatchState.MAKING) == (patch.making is not None)
            if patch.making is not None:
                task = tasks[patch.making]
                assert isinstance(task, PruneTask)
                assert patch.request in task.patches
            if patch.state is PatchState.FAILED:
                assert patch.patch_id in self.world.blamed

    @invariant()
    def the_indexes_tell_what_is(self) -> None:
        state = self.world.core.state
        assert state.unfinished == {name for name, work in state.contexts.items() if not work.finished()}
        assert state.gradable == {n for n, w in state.contexts.items() if w.ungraded and w.grading is None}
        waiting = {work.context.patch_id for work in state.contexts.values() if work.waiting_draws}
        stored = {name for name in waiting if state.patches[name].state is PatchState.STORED}
        running = {work.context.patch_id for work in state.contexts.values() if work.running}
        probed = {name for name in running if state.patches[name].suspected}
        assert {name for patches in state.runnable.values() for name in patches} == stored - probed
        unmade = (PatchState.OWED, PatchState.MAKING)
        assert set(state.unmade) == {name for name in waiting if state.patches[name].state in unmade}
        holding = Counter(worker.patch_id for worker in state.fleet if worker.patch_id is not None)
        assert holding == Counter({name: n for name, n in state.fleet.engines_of.items() if n})
        in_flight: dict[str, float] = {}
        for work in state.contexts.values():
            for shard in work.running.values():
                if shard.left:
                    patch_id = work.context.patch_id
                    in_flight[patch_id] = in_flight.get(patch_id, 0.0) + shard.tokens_left
        assert state.in_flight_tokens == pytest.approx(in_flight)
        shapes = Counter(w.shape for w in state.fleet if w.shape is not None and w.phase is not Phase.CLOSING)
        assert shapes == Counter(state.fleet.shapes)

    @invariant()
    def a_suspected_variant_is_probed_by_one_draw_at_a_time(self) -> None:
        works = self.world.core.state.contexts.values()
        probes = [(w.context.patch_id, shard) for w in works for shard in w.running.values() if shard.probe]
        assert all(len(shard.numbers) == 1 for _, shard in probes)
        assert len({patch_id for patch_id, _ in probes}) == len(probes)

    @invariant()
    def the_fleet_keeps_to_the_policy(self) -> None:
        alive = [p.start.role for p in self.world.processes.values() if p.phase != "dead"]
        policy = self.world.core.state.policy
        engines = alive.count(Role.ENGINE)
        assert engines <= policy.engines
        assert engines + alive.count(Role.PRUNE) <= policy.slots
        assert alive.count(Role.GRADE) <= 1

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.recover()
        self.every_draw_is_in_one_place()
        assert len(world.finishes) == 1
        assert not len(world.core.state.fleet)
        if world.finishes == ["done"]:
            assert world.owed == world.store | set(world.failed)
            assert not world.store & set(world.failed)
        elif world.core.state.stopping is None:
            state = world.core.state
            assert "comes up" in world.finishes[0]
            assert any(state.dead(role) for role in Role)
            if not state.dead(Role.ENGINE):
                stored = [p.patch_id for p in state.patches.values() if p.state is PatchState.STORED]
                assert not any(work.waiting_draws for patch in stored for work in state.by_patch.get(patch, ()))


Sweep.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class TestSweep(Sweep.TestCase):
    """Runs the machine."""
