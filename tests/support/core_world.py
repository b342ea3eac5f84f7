"""The world around a core, without threads or time: a store, processes, and what they have not said yet.

It checks every command against what is true (a worker gets one task at a time, shards go to engines of their
shape and only of patches that exist, nothing committed is made again or recorded as failed), and does by
itself only what a healthy fleet would do. test_core_properties.py adds the faults.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Command,
    Event,
    FindMissing,
    Finish,
    Kill,
    MissingFound,
    RecordFailures,
    Reported,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
    Tick,
    WorkerLost,
    WorkerTask,
)
from orchestrator.scheduler.work import PatchState, Policy
from tests.support.builders import WHOLE, committed, make_context, make_patch, make_work, ready
from workers.failure import Failure, FailureKind
from workers.messages import (
    Graded,
    GradeTask,
    PatchFailed,
    PatchMade,
    PruneTask,
    Rejected,
    Shape,
    TaskEnded,
    TaskFailed,
    WantsMore,
    WeightsLoaded,
)

DrawKey = tuple[str, int]
"""(context id, number)."""

CRASH = Failure(FailureKind.WORKER_LOST, "the process is gone")


@dataclass
class Process:
    """A worker process as the world sees it, and what it has said that nobody has heard yet."""

    start: StartWorker
    phase: str = "starting"
    tasks: list[WorkerTask] = field(default_factory=list)
    left: dict[str, list[int]] = field(default_factory=dict)
    """Task id -> draws of a shard that are not made yet."""
    unmade: list[str] = field(default_factory=list)
    """Patches of its pruning that are not made yet."""
    asked_to_stop: bool = False
    outbox: deque[Event] = field(default_factory=deque)

    @property
    def name(self) -> str:
        return self.start.worker

    def say(self, event: Event) -> None:
        self.outbox.append(event)

    def end_task(self, failure: Failure | None = None) -> None:
        """End the first task."""
        name = self.tasks.pop(0).task_id
        self.left.pop(name, None)
        self.unmade.clear()
        self.say(Reported(self.name, TaskEnded(name) if failure is None else TaskFailed(name, failure)))

    def die(self, failure: Failure = CRASH) -> None:
        self.phase = "dead"
        self.tasks.clear()
        self.unmade.clear()
        self.say(WorkerLost(self.name, failure))


class World:
    """What is true, whatever the core has been told: the store, the processes, and the faults that are built in."""

    def __init__(
        self,
        core: Core,
        shapes: dict[str, Shape],
        poison: set[DrawKey],
        refused: set[DrawKey],
        nan: set[str],
        cursed: set[str],
        nan_draws: frozenset[DrawKey] = frozenset(),
        names_nan: bool = False,
        spoilt: frozenset[str] = frozenset(),
    ) -> None:
        """`nan_draws` kill their engine by NaN; it says which of them did if `names_nan`. `cursed` patches end their
        whole pruning, `spoilt` ones only fail."""
        self.core, self.shapes = core, shapes
        self.poison, self.refused, self.nan, self.cursed = poison, refused, nan, cursed
        self.nan_draws, self.names_nan, self.spoilt = nan_draws, names_nan, spoilt
        self.blamed = set(spoilt)
        """Patches that failed by themselves, or whose pruning ended early when they were alone in it."""
        self.now = 1000.0
        self.processes: dict[str, Process] = {}
        self.recounts: deque[MissingFound] = deque()
        self.store: set[DrawKey] = set()
        self.failed: Counter[DrawKey] = Counter()
        self.patches = {p.patch_id for p in core.state.patches.values() if p.state is PatchState.STORED}
        self.heard: list[Event] = []
        self.finishes: list[str] = []
        self.owed = {(name, number) for name, work in core.state.contexts.items() for number in work.fresh}

    # --- the driver's part ------------------------------------------------------------------------------

    def tell(self, event: Event, after: float = 0.0) -> None:
        self.now += after
        self.heard.append(event)
        for command in self.core.handle(event, self.now):
            self.perform(command)

    def perform(self, command: Command) -> None:
        assert not self.finishes, f"{command} after Finish"
        match command:
            case StartWorker(worker, role, shape):
                assert worker not in self.processes, "a name was used twice"
                assert (shape is not None) == (role is Role.ENGINE)
                self.processes[worker] = Process(command)
            case Assign(worker, task):
                self.assign(self.processes[worker], task)
            case FindMissing(wanted):
                missing = {number for number in wanted.numbers if (wanted.context_id, number) not in self.store}
                self.recounts.append(MissingFound(wanted.task_id, frozenset(missing)))
            case RecordFailures(context_id, numbers):
                for draw in ((context_id, number) for number in numbers):
                    assert draw not in self.store, "a committed draw was recorded as failed"
                    self.failed[draw] += 1
                    assert self.failed[draw] == 1, "a failure was recorded twice"
            case Retire(worker):
                self.processes[worker].asked_to_stop = True
            case Kill(worker, failure):
                if self.processes[worker].phase != "dead":
                    self.processes[worker].die(failure)
            case Finish(reason):
                assert all(p.phase == "dead" for p in self.processes.values()), "a worker was left behind"
                self.finishes.append(reason)

    def assign(self, process: Process, task: WorkerTask) -> None:
        assert process.phase != "starting", "a task for a worker that is not up"
        assert not process.asked_to_stop, "a task for a worker that was asked to close"
        patches = self.wanted(task) if isinstance(task, PruneTask) else []
        if process.phase != "well":
            return  # it goes to nobody; silence will tell
        if isinstance(task, ShardNumbers):
            context = self.core.state.contexts[task.context_id].context
            assert context.shape == process.start.shape, "a shard for an engine of another shape"
            assert context.patch_id in self.patches, "a shard of weights that do not exist"
            again = {(task.context_id, number) for number in task.numbers} & self.store
            assert not again, "a committed draw is made again"
            if process.tasks:
                assert {self.patch_of(other) for other in process.tasks} == {context.patch_id}, "fed other weights"
            process.left[task.task_id] = list(task.numbers)
            process.say(Reported(process.name, WeightsLoaded(task.task_id, context.patch_id, 1.0, 0.0)))
        else:
            assert not process.tasks, "a second task for a busy worker"
            assert process.start.role is (Role.PRUNE if isinstance(task, PruneTask) else Role.GRADE)
        process.unmade = patches
        process.tasks.append(task)

    def wanted(self, task: PruneTask) -> list[str]:
        """The patches of a pruning, which is no larger than allowed and of one model, with what belongs together."""
        works = [self.core.state.patches[request.patch_id] for request in task.patches]
        assert {work.model for work in works} == {task.model}
        assert 1 <= len(works) <= self.core.state.policy.largest_pruning
        if len(works) == 1:
            self.blamed.add(works[0].patch_id)
        else:
            assert not any(work.alone for work in works), "one that was lost in company has company again"
            names = Counter(name for work in works for name in work.passes)
            assert all(any(names[name] > 1 for name in work.passes) for work in works), (
                "what shares nothing is together"
            )
        return [work.patch_id for work in works]

    def patch_of(self, task: WorkerTask) -> str:
        assert isinstance(task, ShardNumbers)
        return self.core.state.contexts[task.context_id].context.patch_id

    # --- the workers' part ------------------------------------------------------------------------------

    def advance(self, process: Process, draws: int) -> None:
        """Let a process do the next thing that it does by itself."""
        if process.phase == "starting":
            process.phase = "well"
            process.say(ready(process.name))
        elif process.tasks:
            self.work(process, process.tasks[0], draws)
        elif process.asked_to_stop and process.phase == "well":
            process.die(Failure(FailureKind.RETIRED, "closed as asked"))

    def work(self, process: Process, task: WorkerTask, draws: int) -> None:
        if isinstance(task, ShardNumbers):
            self.evaluate(process, task, draws)
        elif isinstance(task, GradeTask):
            process.say(Reported(process.name, Graded(task.task_id, task.context_id, 1)))
            process.end_task()
        elif not process.unmade:
            process.end_task()
        else:
            self.prune(process, task, process.unmade.pop(0))

    def prune(self, process: Process, task: PruneTask, patch_id: str) -> None:
        if patch_id in self.cursed:
            process.end_task(Failure(FailureKind.PRUNE, "out of memory"))
        elif patch_id in self.spoilt:
            failure = Failure(FailureKind.BAD_INPUT, "no such layer")
            process.say(Reported(process.name, PatchFailed(task.task_id, patch_id, failure)))
        else:
            self.patches.add(patch_id)
            process.say(Reported(process.name, PatchMade(task.task_id, patch_id, 0.5, 1.0)))
            if process.asked_to_stop:
                process.end_task()

    def evaluate(self, process: Process, one: ShardNumbers, draws: int) -> None:
        if one.context_id in self.nan:
            process.end_task(Failure(FailureKind.NAN, "the weights give NaN"))
            return
        left = process.left[one.task_id]
        batch, left[:] = left[:draws], left[draws:]
        if process.asked_to_stop:
            batch, left[:] = batch[:1], []
        if any((one.context_id, number) in self.poison for number in batch):
            process.die(Failure(FailureKind.ENGINE_LOST, "the engine died"))
            return
        if at_fault := tuple(number for number in batch if (one.context_id, number) in self.nan_draws):
            failure = Failure(FailureKind.NAN, "NaN while decoding")
            if self.names_nan:
                process.say(Reported(process.name, Rejected(one.task_id, at_fault, failure)))
            process.die(failure)
            return
        refused = tuple(number for number in batch if (one.context_id, number) in self.refused)
        if refused:
            process.say(
                Reported(process.name, Rejected(one.task_id, refused, Failure(FailureKind.BAD_INPUT, "too long")))
            )
        if good := [number for number in batch if number not in refused]:
            self.store |= {(one.context_id, number) for number in good}
            process.say(Reported(process.name, committed(one, good)))
        if not left:
            process.end_task()
        elif len(left) < draws and not process.asked_to_stop:
            process.say(Reported(process.name, WantsMore(one.task_id)))

    def recover(self, rounds: int = 3000, draws: int = 3) -> None:
        """No further faults: everything happens in turn, `draws` at a time, until the core has finished."""
        for _ in range(rounds):
            for process in list(self.processes.values()):
                self.advance(process, draws)
            while self.recounts:
                self.tell(self.recounts.popleft())
            for process in list(self.processes.values()):
                while process.outbox and not self.finishes:
                    self.tell(process.outbox.popleft())
            if self.finishes:
                return
            self.tell(Tick(), after=40.0)
        state = self.core.state
        raise AssertionError(f"no end: {state.counters} {list(state.fleet)} {state.patches}")


def test_healthy_world_with_two_patches_ends_with_everything_committed() -> None:
    works = [make_work(make_context(f"c{n}", f"p{n}"), 9, n) for n in range(2)]
    patches = [make_patch("p0", PatchState.OWED), make_patch("p1")]
    core = Core(Policy(engines=2, slots=2, smallest_shard=2, largest_shard=4), patches, works)
    world = World(core, {"p0": WHOLE, "p1": WHOLE}, set(), set(), set(), set())
    world.tell(Tick())
    world.recover()
    assert world.finishes == ["done"]
    assert world.store == world.owed
    assert not world.failed
