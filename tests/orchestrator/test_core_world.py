"""The world around a core, without threads or time: a store, processes, and what they have not said yet.

It checks every command against what is true (a worker gets one task at a time, shards go to engines of their
shape and only of patches that exist, nothing committed is made again or recorded as failed), and does by
itself only what a healthy fleet would do. test_core_properties.py adds the faults.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from orchestrator.core import Core
from orchestrator.events import (
    Assign,
    Command,
    Discard,
    Event,
    Finish,
    RecordFailures,
    Recount,
    Recounted,
    Reported,
    Retire,
    Role,
    StartWorker,
    TaskEnded,
    TaskFailed,
    Tick,
    WorkerLost,
)
from orchestrator.work import Patched, Policy, key
from tests.orchestrator.builders import WHOLE, committed, make_context, make_items, make_patch, make_work, ready
from workers.messages import (
    DrawKey,
    Failure,
    Graded,
    GradeTask,
    Item,
    PatchMade,
    PruneTask,
    Rejected,
    Shape,
    Shard,
    Swapped,
    Task,
)

CRASH = Failure("worker-lost", "the process is gone")


@dataclass
class Process:
    """A worker process as the world sees it, and what it has said that nobody has heard yet."""

    start: StartWorker
    life: str = "starting"
    task: Task | None = None
    left: list[Item] = field(default_factory=list)
    asked_to_stop: bool = False
    outbox: deque[Event] = field(default_factory=deque)

    @property
    def name(self) -> str:
        return self.start.worker

    def say(self, event: Event) -> None:
        self.outbox.append(event)

    def end_task(self, failure: Failure | None = None) -> None:
        assert self.task is not None
        done = TaskEnded(self.name, self.task.task_id)
        self.say(done if failure is None else TaskFailed(self.name, self.task.task_id, failure))
        self.task = None

    def die(self, failure: Failure = CRASH) -> None:
        self.life, self.task = "dead", None
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
    ) -> None:
        self.core, self.shapes = core, shapes
        self.poison, self.refused, self.nan, self.cursed = poison, refused, nan, cursed
        self.now = 1000.0
        self.processes: dict[str, Process] = {}
        self.recounts: deque[Recounted] = deque()
        self.store: set[DrawKey] = set()
        self.failed: Counter[DrawKey] = Counter()
        self.patches = {p.task.patch_id for p in core.state.patches.values() if p.state is Patched.HELD}
        self.heard: list[Event] = []
        self.finishes: list[str] = []
        self.owed = {key(w.context, i) for w in core.state.contexts.values() for p in w._waiting for i in p.items}

    # --- the driver's part ------------------------------------------------------------------------------

    def tell(self, event: Event, after: float = 0.0) -> None:
        self.now += after
        self.heard.append(event)
        for command in self.core.handle(event, self.now):
            self.perform(command)

    def perform(self, command: Command) -> None:
        assert not self.finishes, f"{command} after Finish"
        match command:
            case StartWorker(worker, role, shape, patch_id):
                assert worker not in self.processes, "a name was used twice"
                if role is Role.ENGINE:
                    assert shape is not None
                    assert shape.whole or (patch_id in self.patches and self.shapes[patch_id] == shape)
                self.processes[worker] = Process(command)
            case Assign(worker, task):
                self.assign(self.processes[worker], task)
            case Recount(shard):
                keys = {key(shard.context, item) for item in shard.items}
                self.recounts.append(Recounted(shard.task_id, frozenset(keys - self.store)))
            case RecordFailures(rows):
                for row in rows:
                    assert row.key not in self.store, "a committed draw was recorded as failed"
                    self.failed[row.key] += 1
                    assert self.failed[row.key] == 1, "a failure was recorded twice"
            case Retire(worker):
                self.processes[worker].asked_to_stop = True
            case Discard(worker, failure):
                if self.processes[worker].life != "dead":
                    self.processes[worker].die(failure)
            case Finish(reason):
                assert all(p.life == "dead" for p in self.processes.values()), "a worker was left behind"
                self.finishes.append(reason)

    def assign(self, process: Process, task: Task) -> None:
        assert process.life != "starting", "a task for a worker that is not up"
        assert process.task is None, "a second task for a busy worker"
        if process.life != "well":
            return  # it goes to nobody; silence will tell
        process.task = task
        if isinstance(task, Shard):
            assert task.context.shape == process.start.shape, "a shard for an engine of another shape"
            assert task.context.patch_id in self.patches, "a shard of weights that do not exist"
            again = {key(task.context, item) for item in task.items} & self.store
            assert not again, "a committed draw is made again"
            process.left = list(task.items)
            process.say(Reported(process.name, Swapped(task.task_id, task.context.patch_id, 1.0, 0.0)))
        elif isinstance(task, PruneTask):
            assert process.start.role is Role.PRUNE
        else:
            assert process.start.role is Role.GRADE

    # --- the workers' part ------------------------------------------------------------------------------

    def advance(self, process: Process, draws: int) -> None:
        """Let a process do the next thing that it does by itself."""
        if process.life == "starting":
            process.life = "well"
            process.say(ready(process.name))
        elif isinstance(process.task, Shard):
            self.evaluate(process, process.task, draws)
        elif isinstance(process.task, PruneTask):
            if process.task.patch_id in self.cursed:
                process.end_task(Failure("prune", "out of memory"))
            else:
                self.patches.add(process.task.patch_id)
                process.say(Reported(process.name, PatchMade(process.task.task_id, process.task.patch_id, 0.5, 1.0)))
                process.end_task()
        elif isinstance(process.task, GradeTask):
            process.say(Reported(process.name, Graded(process.task.task_id, process.task.context_id, 1)))
            process.end_task()
        elif process.asked_to_stop and process.life == "well":
            process.die(Failure("retired", "closed as asked"))

    def evaluate(self, process: Process, shard: Shard, draws: int) -> None:
        if shard.context.context_id in self.nan:
            process.end_task(Failure("nan", "the weights give NaN"))
            return
        batch, process.left = process.left[:draws], process.left[draws:]
        if process.asked_to_stop:
            batch, process.left = batch[:1], []
        keys = [key(shard.context, item) for item in batch]
        if self.poison.intersection(keys):
            process.die(Failure("engine-lost", "the engine died"))
            return
        refused = tuple(k for k in keys if k in self.refused)
        if refused:
            process.say(Reported(process.name, Rejected(shard.task_id, refused, Failure("bad-input", "too long"))))
        good = [item for item, k in zip(batch, keys, strict=True) if k not in self.refused]
        if good:
            self.store |= {key(shard.context, item) for item in good}
            process.say(Reported(process.name, committed(shard, good)))
        if not process.left:
            process.end_task()

    def recover(self, rounds: int = 3000) -> None:
        """No further faults: everything happens in turn until the core has finished."""
        for _ in range(rounds):
            for process in list(self.processes.values()):
                self.advance(process, 3)
            while self.recounts:
                self.tell(self.recounts.popleft())
            for process in list(self.processes.values()):
                while process.outbox and not self.finishes:
                    self.tell(process.outbox.popleft())
            if self.finishes:
                return
            self.tell(Tick(), after=40.0)
        state = self.core.state
        raise AssertionError(f"no end: {state.tally} {state.workers} {state.patches}")


def test_healthy_world_with_two_patches_ends_with_everything_committed() -> None:
    works = [make_work(make_context(f"c{n}", f"p{n}"), make_items(9), n) for n in range(2)]
    patches = [make_patch("p0", Patched.OWED), make_patch("p1")]
    core = Core(Policy(engines=2, slots=2, smallest_shard=2, largest_shard=4), patches, works)
    world = World(core, {"p0": WHOLE, "p1": WHOLE}, set(), set(), set(), set())
    world.tell(Tick())
    world.recover()
    assert world.finishes == ["done"]
    assert world.store == world.owed
    assert not world.failed
