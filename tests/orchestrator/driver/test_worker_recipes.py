"""The grid's runtime settings reach the workers that they are for."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.scheduler.events import Role
from tests.support.builders import WHOLE, TinySweep
from workers.engines.engine import EngineSettings
from workers.evaluation import FeedSettings
from workers.grade_worker import GradeSettings


@pytest.fixture
def recipes(sweep: TinySweep, tmp_path: Path) -> WorkerRecipes:
    sweep.runtime = {
        "in_flight": 7, "commit_seconds": 3.0, "store_seconds": 11.0, "max_sequences": 5, "tensor_parallel": 2,
        "cpu_cache_mib": 99, "gpu_memory_utilization": 0.5, "grader": "exact", "grader_processes": 3,
        "grader_seconds": 4.0,
    }  # fmt: skip
    return WorkerRecipes(sweep.plan().resolved.grid.runtime, sweep.store, tmp_path, sweep.engines)


def test_engine_is_built_for_its_shape_with_the_settings_of_the_grid(recipes: WorkerRecipes) -> None:
    recipe = recipes.engine(WHOLE, 512)
    assert recipe.shape == WHOLE
    assert recipe.settings == EngineSettings("bfloat16", 512, 5, 2, 99, 0.5)
    assert recipe.feed == FeedSettings(7, 3.0, store_seconds=11.0)
    assert recipe.start_engine == recipes.start_engine


def test_grader_and_pruner_have_the_settings_of_the_grid(recipes: WorkerRecipes) -> None:
    assert recipes.grader().settings == GradeSettings("exact", 3, 4.0, store_seconds=11.0)
    assert recipes.pruner().store_seconds == 11.0


def test_gpus_are_for_engines_by_their_ranks_for_pruners_one_and_for_graders_none(recipes: WorkerRecipes) -> None:
    assert [recipes.gpus(role) for role in (Role.ENGINE, Role.PRUNE, Role.GRADE)] == [2, 1, 0]
    whole = replace(recipes, runtime=recipes.runtime.model_copy(update={"tensor_parallel": 1}))
    assert whole.gpus(Role.ENGINE) == 1
