"""Recipes of a sweep's workers: how the driver has an engine, a pruner or a grader built."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.grid.format import Runtime
from orchestrator.scheduler.events import Role
from orchestrator.store.store import Store
from workers.engines.engine import EngineSettings
from workers.evaluation import FeedSettings
from workers.grade_worker import GradeSettings
from workers.messages import Shape
from workers.recipes import EngineRecipe, GradeRecipe, PruneRecipe, StartEngine, start_vllm


@dataclass(frozen=True)
class WorkerRecipes:
    """What all workers of a sweep have in common."""

    runtime: Runtime
    store: Store
    scratch: Path
    """A folder for the copies of patches that workers make, on each worker's own machine."""
    start_engine: StartEngine = start_vllm

    def gpus(self, role: Role) -> int:
        """The number of GPUs that a worker takes, where there are GPUs."""
        return {Role.ENGINE: self.runtime.tensor_parallel, Role.PRUNE: 1, Role.GRADE: 0}[role]

    def engine(self, shape: Shape, context_length: int) -> EngineRecipe:
        """An engine for variants of `shape`, with room for `context_length` tokens."""
        runtime = self.runtime
        settings = EngineSettings(
            dtype=shape.dtype,
            context_length=context_length,
            max_sequences=runtime.max_sequences,
            tensor_parallel=runtime.tensor_parallel,
            cpu_cache_mib=runtime.cpu_cache_mib,
            gpu_memory_utilization=runtime.gpu_memory_utilization,
        )
        feed = FeedSettings(runtime.in_flight, runtime.commit_seconds, store_seconds=runtime.store_seconds)
        return EngineRecipe(shape, self.store, str(self.scratch / "patches"), settings, feed, self.start_engine)

    def pruner(self) -> PruneRecipe:
        return PruneRecipe(self.store, str(self.scratch / "pruning"), self.runtime.store_seconds)

    def grader(self) -> GradeRecipe:
        grader, processes, seconds = self.runtime.grader, self.runtime.grader_processes, self.runtime.grader_seconds
        return GradeRecipe(self.store, GradeSettings(grader, processes, seconds, self.runtime.store_seconds))
