"""A fleet in virtual time around the real core: what the placement benchmarks run on. No threads, no processes.

Every engine has `slots` places; a draw in one takes a step per token, whatever the other places do (the scripted
engine's latency model). It commits every few seconds, asks for more when few draws wait in it, and takes a while to
start and to swap. Lengths have a heavy tail, cut at the token limit, and belong to the question: other variants and
seeds of it vary around the same length.
"""

import heapq
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from eval.spec import BudgetSpec, SamplingSpec
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Assign,
    Command,
    Event,
    FindMissing,
    Kill,
    MissingFound,
    Reported,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
    Tick,
    WorkerLost,
    WorkerReady,
)
from orchestrator.scheduler.work import ContextWork, LengthEstimator, PatchState, PatchWork, Policy
from pruning.spec import PruneSpec
from workers.failure import Failure, FailureKind
from workers.messages import (
    Committed,
    Context,
    Graded,
    GradeTask,
    PatchMade,
    PatchRequest,
    PruneTask,
    Shape,
    TaskEnded,
    WantsMore,
    WeightsLoaded,
    WorkerInfo,
)

BENCHMARKS = {"MATH-500": (500, 2600.0), "AIME24": (30, 7000.0), "AMC23": (40, 4000.0), "GPQA-Diamond": (198, 4500.0)}
"""Questions, and the median of their lengths in tokens, before the limit cuts them."""
DEFAULTS = {"MATH-500": 3500.0, "AIME24": 10_000.0, "AMC23": 6000.0, "GPQA-Diamond": 6000.0}
"""What the core expects of a question before any of its traces is made."""
SEEDS = 3
LIMIT = 8192
MODELS, WHOLE_VARIANTS, SHORTENED_VARIANTS = 2, 13, 2
"""The paper's grid: per model dense and 12 unstructured variants of one shape, and two of shapes of their own."""


@dataclass(frozen=True)
class Speeds:
    """What things take, in seconds."""

    start: float = 60.0
    swap: float = 8.0
    prune: float = 90.0
    record: float = 15.0
    """A dense variant's patch: the model is read and its digests are taken."""
    step: float = 0.025
    slots: int = 128
    commit: float = 5.0


def questions() -> list[str]:
    """The benchmark of each question."""
    return [name for name, (size, _) in BENCHMARKS.items() for _ in range(size)]


def lengths(seed: int = 0, spread: float = 0.35) -> list[list[int]]:
    """Question -> the length of each of its draws, variants × seeds, in tokens."""
    chance = random.Random(seed)
    made = []
    for name in questions():
        typical = chance.lognormvariate(0.0, 0.7) * BENCHMARKS[name][1]
        draws = MODELS * (WHOLE_VARIANTS + SHORTENED_VARIANTS) * SEEDS
        made.append([min(LIMIT, max(50, int(typical * chance.lognormvariate(0.0, spread)))) for _ in range(draws)])
    return made


def paper_core(engines: int, made: bool = False) -> Core:
    """A core that owes the paper's grid. `made`: the patches are in the store already."""
    patches, contexts = [], []
    sampling, budget = SamplingSpec(1.0, seeds=()), BudgetSpec("native-strict", answer_tokens=512)
    draws = len(questions()) * SEEDS
    for model in range(MODELS):
        expected = LengthEstimator(questions(), [DEFAULTS[name] for name in questions()])
        for variant in range(WHOLE_VARIANTS + SHORTENED_VARIANTS):
            removed = max(0, variant - WHOLE_VARIANTS + 1)
            shape = Shape(f"model-{model}", 28 - removed, "bfloat16")
            name = f"m{model}v{variant:02}"
            state = PatchState.STORED if made else PatchState.OWED
            spec = PruneSpec("wanda" if variant else "dense")
            patches.append(PatchWork(PatchRequest(name, spec, {}), shape.model, state))
            context = Context(name, "answers", shape, name, sampling, budget, None, 40960, name)
            contexts.append(ContextWork(context, (), len(contexts), expected, SEEDS, LIMIT, fresh=range(draws)))
    return Core(Policy(engines=engines, slots=engines, largest_shard=128), patches, contexts)


@dataclass
class Engine:
    """One engine of the fleet."""

    patch: str | None = None
    ready_at: float = 0.0
    """When it can begin draws: after its swap."""
    waiting: deque[tuple[ShardNumbers, int]] = field(default_factory=deque)
    active: int = 0
    open: dict[str, int] = field(default_factory=dict)
    """Task id -> draws of it that are not reported."""
    done: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Task id -> (number, length) finished and not committed."""
    commit_due: bool = False
    asked: bool = False
    busy: float = 0.0
    """Slot seconds spent on draws."""


@dataclass
class Outcome:
    """What a simulated sweep came to. Times are virtual, but for `decisions`."""

    makespan: float
    last_commit: float
    swaps: int
    starts: int
    committed: int
    decisions: list[float]
    """Seconds that each call of the core took for each of its commands, in real time."""
    events: int


class VirtualFleet:
    """Runs a core to its end."""

    def __init__(self, core: Core, speeds: Speeds, length_of: Sequence[Sequence[int]]) -> None:
        self._core, self._speeds, self._lengths = core, speeds, length_of
        self._patch = {name: work.context.patch_id for name, work in core.state.contexts.items()}
        self._order = {name: work.order for name, work in core.state.contexts.items()}
        self._engines: dict[str, Engine] = {}
        self._heap: list[tuple[float, int, object]] = []
        self._ids = count()
        self.decisions: list[float] = []
        self.swaps = self.starts = self.events = 0
        self.last_commit = 0.0

    def run(self) -> Outcome:
        """Drive to the end."""
        self._tell(0.0, Tick())
        while self._core.finished is None:
            at, _, what = heapq.heappop(self._heap)
            if isinstance(what, tuple):
                self._happen(at, *what)
            else:
                self._tell(at, what)
        counters = self._core.state.counters
        return Outcome(at, self.last_commit, self.swaps, self.starts, counters.committed, self.decisions, self.events)

    def _later(self, at: float, what: object) -> None:
        heapq.heappush(self._heap, (at, next(self._ids), what))

    def _tell(self, now: float, event: Event) -> None:
        began = time.perf_counter()
        commands = self._core.handle(event, now + 1.0)
        self.decisions.append((time.perf_counter() - began) / max(1, len(commands)))
        self.events += 1
        for command in commands:
            self._perform(now, command)

    def _perform(self, now: float, command: Command) -> None:
        match command:
            case StartWorker(worker, role):
                self.starts += role is Role.ENGINE
                if role is Role.ENGINE:
                    self._engines[worker] = Engine()
                takes = self._speeds.start if role is Role.ENGINE else 1.0
                self._later(now + takes, WorkerReady(worker, WorkerInfo(worker, "host", 1)))
            case Assign(worker, ShardNumbers() as one):
                self._take(now, worker, one)
            case Assign(worker, PruneTask() as task):
                at = now
                for one in task.patches:
                    takes = self._speeds.record if one.spec.method == "dense" else self._speeds.prune
                    at += takes
                    self._later(at, Reported(worker, PatchMade(task.task_id, one.patch_id, 0.2, takes)))
                self._later(at, Reported(worker, TaskEnded(task.task_id)))
            case Assign(worker, GradeTask() as task):
                self._later(now + 2.0, Reported(worker, Graded(task.task_id, task.context_id, 1)))
                self._later(now + 2.0, Reported(worker, TaskEnded(task.task_id)))
            case Retire(worker):
                self._later(now, WorkerLost(worker, Failure(FailureKind.RETIRED, "closed as asked")))
            case FindMissing(wanted):
                self._later(now, MissingFound(wanted.task_id, frozenset(wanted.numbers)))
            case Kill(worker, failure):
                raise AssertionError(f"{worker} was discarded in a healthy fleet: {failure}")

    def _take(self, now: float, worker: str, one: ShardNumbers) -> None:
        engine, patch = self._engines[worker], self._patch[one.context_id]
        if engine.patch != patch:
            assert not engine.active, "weights were swapped under draws"
            engine.patch, engine.ready_at = patch, now + self._speeds.swap
            self.swaps += 1
            self._later(engine.ready_at, Reported(worker, WeightsLoaded(one.task_id, patch, self._speeds.swap, 0.0)))
        engine.open[one.task_id] = len(one.numbers)
        engine.waiting.extend((one, number) for number in one.numbers)
        engine.asked = False
        self._later(max(now, engine.ready_at), ("fill", worker))

    def _happen(self, now: float, what: str, worker: str, one: ShardNumbers | None = None, number: int = 0) -> None:
        engine = self._engines[worker]
        if what == "commit":
            self._commit(now, worker, engine)
            return
        if what == "finish":
            assert one is not None
            engine.active -= 1
            engine.done.setdefault(one.task_id, []).append((number, self._length(one, number)))
            if not engine.commit_due:
                engine.commit_due = True
                idle = not engine.active and not engine.waiting
                self._later(now if idle else now + self._speeds.commit, ("commit", worker))
            elif not engine.active and not engine.waiting:
                self._later(now, ("commit", worker))
        while engine.waiting and engine.active < self._speeds.slots and now >= engine.ready_at:
            taken, number = engine.waiting.popleft()
            engine.active += 1
            seconds = self._length(taken, number) * self._speeds.step
            engine.busy += seconds
            self._later(now + seconds, ("finish", worker, taken, number))
        if len(engine.waiting) < self._speeds.slots // 2 and not engine.asked and engine.open:
            engine.asked = True
            self._tell(now, Reported(worker, WantsMore(next(reversed(engine.open)))))

    def _commit(self, now: float, worker: str, engine: Engine) -> None:
        engine.commit_due = False
        done, engine.done = engine.done, {}
        for task_id, draws in done.items():
            self.last_commit = now
            engine.open[task_id] -= len(draws)
            numbers, tokens = zip(*draws, strict=True)
            self._tell(now, Reported(worker, Committed(task_id, numbers, tokens, sum(tokens), 0, 0, 0)))
            if not engine.open[task_id]:
                del engine.open[task_id]
                self._tell(now, Reported(worker, TaskEnded(task_id)))

    def _length(self, one: ShardNumbers, number: int) -> int:
        question, seed = divmod(number, SEEDS)
        return self._lengths[question][self._order[one.context_id] * SEEDS + seed]


def lower_bound(engines: int, speeds: Speeds, length_of: Sequence[Sequence[int]]) -> tuple[float, str]:
    """No schedule can end before this; and what makes it so.

    Either all slots are busy from the first moment to the last, every device having done its share of the pruning and
    swaps and started one engine. Or there is a chain: a patch, beside which an engine starts, a swap, and the longest
    draw of a pruned variant.
    """
    variants = MODELS * (WHOLE_VARIANTS + SHORTENED_VARIANTS)
    tokens = sum(map(sum, length_of))
    loads = max(1.0, variants / engines)
    decoding = tokens * speeds.step / (engines * speeds.slots)
    pruning = MODELS * speeds.record + (variants - MODELS) * speeds.prune
    area = speeds.start + loads * speeds.swap + pruning / engines + decoding
    of_model = (WHOLE_VARIANTS + SHORTENED_VARIANTS) * SEEDS  # draws of one question; the dense variant's come first
    pruned = (one for lengths in length_of for draw, one in enumerate(lengths) if draw % of_model >= SEEDS)
    longest = max(pruned) * speeds.step
    chain = max(1.0 + speeds.prune, speeds.start) + speeds.swap + longest
    return max((area, "work"), (chain, "patch, swap, longest draw"))
