"""Small values to test the orchestrator with: contexts, owed draws, cores that owe them, tiny sweeps."""

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from eval.draws import Answer, DrawJob
from eval.grader_pool import GraderPool
from eval.spec import BudgetSpec, SamplingSpec
from orchestrator.cluster.local_backend import LocalBackend
from orchestrator.console import say
from orchestrator.driver.calibration_traces import make_traces
from orchestrator.driver.driver import Driver
from orchestrator.driver.event_log import event_log
from orchestrator.driver.make_core import make_core as make_driven_core
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.grid.parse import read_grid
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.plan.stored import read_stored
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import (
    Command,
    Event,
    RecordFailures,
    Reported,
    Role,
    ShardNumbers,
    StartWorker,
    StopRequested,
    WorkerReady,
)
from orchestrator.scheduler.work import ContextWork, LengthEstimator, PatchState, PatchWork, Policy
from orchestrator.store.store import Store
from pruning.spec import PruneSpec
from tests.support import ROOT
from workers.engines.scripted_engine import Fault, ScriptedEngines
from workers.grade_worker import GradeSettings, GradeWorker
from workers.messages import Committed, Context, Item, PatchRequest, Shape, WorkerInfo
from workers.recipes import GradeRecipe
from workers.rows.tables import DrawRow, FailureRow, GradeRow
from workers.store import WorkerStore

C = TypeVar("C")

WHOLE = Shape("model", 4, "bfloat16")
SHORTENED = Shape("model", 3, "bfloat16")


def make_context(name: str, patch_id: str = "patch", shape: Shape = WHOLE) -> Context:
    sampling, budget = SamplingSpec(1.0, seeds=()), BudgetSpec("native-strict", answer_tokens=8)
    return Context(name, "answers", shape, patch_id, sampling, budget, None, 512, name)


def make_item(prompt: str, seed: int = 0, limits: tuple[int, ...] = (8, 16), number: int = 0) -> Item:
    return Item(number, prompt, "benchmark", DrawJob(f"problem-{prompt}", (1, 2, 3), seed, limits))


def make_patch(
    patch_id: str = "patch",
    state: PatchState = PatchState.STORED,
    method: str = "dense",
    passes: tuple[str, ...] = (),
    model: str = "model",
) -> PatchWork:
    return PatchWork(PatchRequest(patch_id, PruneSpec(method), {}), model, state, passes)


def make_work(context: Context, draws: int, order: int = 0) -> ContextWork:
    """A context that owes draws 0, 1, ... of a benchmark of one seed."""
    return ContextWork(
        context,
        (),
        order,
        LengthEstimator(["benchmark"] * max(1, draws), [4000.0] * max(1, draws)),
        limit=16,
        fresh=range(draws),
    )


def make_core(draws: int, policy: Policy | None = None, state: PatchState = PatchState.STORED) -> Core:
    """A core that owes so many draws of one context, "c"."""
    return Core(policy or Policy(), [make_patch(state=state)], [make_work(make_context("c"), draws)])


def ready(worker: str) -> WorkerReady:
    return WorkerReady(worker, WorkerInfo(worker, "host", 1))


def committed(one: ShardNumbers, numbers: Sequence[int]) -> Committed:
    done = tuple(numbers)
    return Committed(one.task_id, done, (10,) * len(done), 10 * len(done), 2 * len(done), 0, 3 * len(done))


def started(commands: Iterable[Command], role: Role) -> list[str]:
    """The workers of a role that `commands` start."""
    return [c.worker for c in commands if isinstance(c, StartWorker) and c.role is role]


def of_kind(commands: Iterable[Command], kind: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


class Hand:
    """Feeds a core by hand, one event at a time, at a time that the test sets."""

    def __init__(self, core: Core) -> None:
        self.core, self.now = core, 100.0
        self.said: list[Command] = []

    def __call__(self, event: Event, after: float = 0.0) -> list[Command]:
        self.now += after
        commands = self.core.handle(event, self.now)
        self.said += commands
        return commands

    def failures(self) -> dict[tuple[str, int], RecordFailures]:
        """(context id, draw) -> the command that gave it up."""
        return {(c.context_id, n): c for c in of_kind(self.said, RecordFailures) for n in c.numbers}


def make_answer(cut: int, text: str = "\\boxed{7}", forced: bool = True) -> Answer:
    return Answer(cut, forced, cut, (5, 6, 7), text, False, "stop", False)


def make_row(
    trace: Sequence[int] = (1, 2, 3, 4),
    cuts: Sequence[int] = (4,),
    *,
    start: int = 0,
    limit: int = 4,
    ended: bool = False,
    answer_context: str = "answers",
    created_at: float = 1.0,
    prompt: str = "p0",
    seed: int = 0,
    text: str = "\\boxed{7}",
    loop_at: int = 0,
) -> DrawRow:
    """A committed contribution to draw (prompt, seed) of context "c"."""
    return DrawRow(
        context_id="c",
        answer_context_id=answer_context,
        prompt_id=prompt,
        seed=seed,
        benchmark="benchmark",
        problem_id=f"problem-{prompt}",
        prompt_ids=(1, 2, 3),
        start=start,
        limit=limit,
        trace_ids=tuple(trace),
        loop_at=loop_at,
        trace_text="".join(map(str, trace)),
        ended=ended,
        derived_seed=start > 0,
        waits=0,
        answers=tuple(make_answer(cut, text) for cut in cuts),
        weights_digest="w" * 8,
        engine="{}",
        worker="engine-1",
        created_at=created_at,
    )


def make_grade(prompt: str = "p0", seed: int = 0, cut: int = 4) -> GradeRow:
    return GradeRow("c", "answers", prompt, seed, cut, "gold", "standard@1", "CORRECT", "7", "", "box")


def make_failure(prompt: str = "p0", context: str = "c", created_at: float = 1.0) -> FailureRow:
    return FailureRow(context, prompt, 0, "benchmark", f"problem-{prompt}", "hang", "silent", 3, "log", created_at)


# --- tiny sweeps ----------------------------------------------------------------------------------------

TINY = ROOT / "examples" / "tiny"
PROBLEMS = [json.loads(line) for line in (TINY / "chain-mixed.jsonl").read_text().splitlines()]


@dataclass
class TinySweep:
    """A grid on the tiny reasoner in a folder of its own, run by the real driver and workers on scripted engines.

    `variants`, `limits`, `seeds`, `benchmarks` (name -> which problems) and `parts` (name -> keys such as `first`) can
    be changed between runs, as a user edits a grid.
    """

    folder: Path
    model: str | Path = TINY / "model"
    variants: list[dict[str, Any]] = field(default_factory=lambda: [{"method": "dense"}])
    limits: tuple[int, ...] = (8, 32)
    seeds: tuple[int, ...] = (0, 1)
    benchmarks: dict[str, range] = field(default_factory=lambda: {"first": range(4)})
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    temperature: float = 1.0
    sampling: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)
    calibration: list[dict[str, Any]] | None = None
    runtime: dict[str, Any] = field(default_factory=dict)
    engines: ScriptedEngines = field(init=False)

    def __post_init__(self) -> None:
        self.engines = ScriptedEngines(str(self.folder / "ledger"))
        self.store = Store.open(str(self.folder / "store"))

    def resolve_grid(self) -> ResolvedGrid:
        return resolve_grid(read_grid(self.write_grid()), self.store.traces_digest)

    def plan(self) -> Plan:
        resolved = self.resolve_grid()
        return make_plan(resolved, read_stored(self.store, resolved))

    def core(self) -> Core:
        """The core as a run would begin with it."""
        plan = self.plan()
        return make_driven_core(plan, self.store, plan.resolved.grid.runtime, LocalBackend(cpus=2).devices())

    def run(self, *faults: Fault, stop_after: int | None = None, own_graders: bool = False) -> str:
        """Run or resume; returns why it ended. `stop_after`: ask it to stop when so many draws are committed."""
        return self._drive(self.plan(), faults, stop_after, own_graders)

    def make_traces(self, *faults: Fault, stop_after: int | None = None) -> str:
        """Draw the traces that variants are calibrated on, as the sweep does first; returns why it ended."""
        return make_traces(self.resolve_grid().requests, self.store, lambda plan: self._drive(plan, faults, stop_after))

    def _drive(self, plan: Plan, faults: Sequence[Fault], stop_after: int | None, own_graders: bool = False) -> str:
        backend = _Fleet(stop_after, own_graders)
        engines = replace(self.engines, faults=tuple(faults))
        runtime = plan.resolved.grid.runtime
        core = make_driven_core(plan, self.store, runtime, backend.devices())
        recipes = WorkerRecipes(runtime, self.store, self.folder / "scratch", engines)
        with event_log(self.store, "tiny", runtime.event_log, say) as log, closing(backend):
            log.begin(core)
            return Driver(core, plan, backend, recipes, [log]).run()

    def rows(self, table: str = "draws") -> list[dict[str, Any]]:
        """Everything in a table of the store but who wrote it and when, in one order."""
        read = [r for c in self.store.contexts(table) for r in self.store.read(table, c).to_pylist()]
        kept = [{k: v for k, v in row.items() if k not in ("worker", "created_at", "log")} for row in read]
        return sorted(kept, key=repr)

    def prompt(self, number: int) -> tuple[int, ...]:
        """The prompt of problem `number`."""
        problem = f"mixed-{number:03}"
        questions = self.resolve_grid().variants[0].questions
        return next(q.prompt_ids for q in questions if q.problem_id == problem)

    def write_grid(self) -> Path:
        """Write the grid and its benchmarks as they stand now; returns grid.yaml."""
        for name, numbers in self.benchmarks.items():
            lines = [json.dumps(PROBLEMS[number]) + "\n" for number in numbers]
            (self.folder / f"{name}.jsonl").write_text("".join(lines))
        grid = {
            "name": "tiny",
            "store": str(self.folder / "store"),
            "models": [str(self.model)],
            "variants": self.variants,
            "token_limits": list(self.limits),
            "benchmarks": [
                {"name": str(self.folder / f"{name}.jsonl"), **self.parts.get(name, {})} for name in self.benchmarks
            ],
            "sampling": {"temperature": self.temperature, "seeds": list(self.seeds), **self.sampling},
            "budget": {"mode": "native-strict", "answer_tokens": 16, **self.budget},
            "calibration": self.calibration,
            "runtime": {"engines": 1, "slots": 2, "in_flight": 2, "commit_seconds": 0.0001, **self.runtime},
        }
        file = self.folder / "grid.yaml"
        file.write_text(yaml.safe_dump(grid))
        return file


class _Fleet(LocalBackend):
    """A local backend whose graders outlive it, and in which somebody may ask for a stop after some commits."""

    def __init__(self, stop_after: int | None, own_graders: bool) -> None:
        super().__init__(cpus=2)
        self._left, self._own_graders = stop_after, own_graders

    def start(self, worker: str, recipe: Any, gpus: int, avoid: Sequence[str] = ()) -> None:
        lasting = isinstance(recipe, GradeRecipe) and not self._own_graders
        super().start(worker, _LastingGrading(recipe) if lasting else recipe, gpus)

    def poll(self, seconds: float) -> list[Event]:
        events = list(super().poll(seconds))
        for event in events:
            if self._left is not None and isinstance(event, Reported) and isinstance(event.report, Committed):
                self._left -= len(event.report.numbers)
        if self._left is not None and self._left <= 0:
            self._left = None
            events.append(StopRequested("stopped by test"))
        return events


@cache
def _lasting_pool() -> GraderPool:
    return GraderPool(workers=1)


class _LastingGradeWorker(GradeWorker):
    """The real one; but its children are shared, because to start one takes longer than a whole tiny sweep."""

    def __init__(self, name: str, store: WorkerStore, settings: GradeSettings) -> None:
        self._name, self._store, self._settings, self._log = name, store, replace(settings, store_seconds=0.0), ""
        self._pool = _lasting_pool()

    def close(self) -> None:
        """The pool's own finalizer ends the children with the tests."""


@dataclass(frozen=True)
class _LastingGrading:
    recipe: GradeRecipe

    def build(self, name: str, log: str) -> GradeWorker:
        return _LastingGradeWorker(name, self.recipe.store, self.recipe.settings)
