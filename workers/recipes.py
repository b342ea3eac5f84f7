"""How each kind of worker is built, as values that travel to the process that builds it.

Heavy imports happen inside `build`, in the worker's process: the driver stays light, and a pruning worker never loads
vLLM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workers.engines.engine import Engine, EngineSettings
from workers.evaluation import FeedSettings
from workers.failure import Failure
from workers.grade_worker import GradeSettings, GradeWorker
from workers.messages import Shape
from workers.sources import SourceFault, find_base
from workers.store import WorkerStore
from workers.worker import Worker, WorkerFault

StartEngine = Callable[[Path, int, EngineSettings], Engine]
"""(base checkpoint, how many of its blocks variants keep, settings) -> an engine."""


def start_vllm(base: Path, layers: int, settings: EngineSettings) -> Engine:
    """Start the real engine."""
    from workers.engines.vllm_engine import VllmEngine

    return VllmEngine(base, layers, settings)


@dataclass(frozen=True)
class EngineRecipe:
    """An evaluation worker."""

    shape: Shape
    store: WorkerStore
    cache: str
    settings: EngineSettings
    feed: FeedSettings
    start_engine: StartEngine = start_vllm

    def build(self, name: str, log: str) -> Worker:
        from workers.eval_worker import EvalWorker

        try:
            base = find_base(self.shape.model, self.shape.digest)
        except SourceFault as fault:
            raise WorkerFault(Failure(fault.kind, str(fault), log)) from None
        engine = self.start_engine(base, self.shape.layers, self.settings)
        return EvalWorker(name, engine, self.store, base, Path(self.cache), self.feed, log)


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
    settings: GradeSettings

    def build(self, name: str, log: str) -> Worker:
        return GradeWorker(name, self.store, self.settings, log)


Recipe = EngineRecipe | PruneRecipe | GradeRecipe
