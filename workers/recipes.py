"""How each kind of worker is built, as values that travel to the process that will build it.

Heavy imports happen inside `build`, in the worker's process: the driver stays light, and a pruning worker never loads
vLLM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workers.engines.engine import Engine, EngineSettings
from workers.messages import Shape
from workers.store import WorkerStore
from workers.worker import Worker

StartEngine = Callable[[Path, int, EngineSettings], Engine]
"""(base checkpoint, how many of its blocks variants keep, settings) -> an engine."""


def start_vllm(base: Path, layers: int, settings: EngineSettings) -> Engine:
    """The real engine."""
    from workers.engines.vllm_engine import VllmEngine

    return VllmEngine(base, layers, settings)


@dataclass(frozen=True)
class EngineRecipe:
    """An evaluation worker."""

    shape: Shape
    store: WorkerStore
    cache: str
    settings: EngineSettings
    in_flight: int
    commit_seconds: float
    store_seconds: float
    start_engine: StartEngine = start_vllm

    def build(self, name: str, log: str) -> Worker:
        from workers.eval_worker import EvalWorker
        from workers.evaluation import FeedSettings

        return EvalWorker(
            name,
            self.start_engine(Path(self.shape.model), self.shape.layers, self.settings),
            self.store,
            Path(self.shape.model),
            Path(self.cache),
            FeedSettings(self.in_flight, self.commit_seconds, store_seconds=self.store_seconds),
            log,
        )


@dataclass(frozen=True)
class PruneRecipe:
    """A pruning worker."""

    store: WorkerStore
    scratch: str
    store_seconds: float

    def build(self, name: str, log: str) -> Worker:
        from workers.prune_worker import PruneWorker

        return PruneWorker(name, self.store, Path(self.scratch), log, self.store_seconds)


@dataclass(frozen=True)
class GradeRecipe:
    """A grading worker."""

    store: WorkerStore
    grader: str
    processes: int
    seconds: float
    store_seconds: float

    def build(self, name: str, log: str) -> Worker:
        from workers.grade_worker import GradeWorker

        return GradeWorker(name, self.store, self.grader, self.processes, self.seconds, log, self.store_seconds)


Recipe = EngineRecipe | PruneRecipe | GradeRecipe
