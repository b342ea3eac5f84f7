"""What every test shares: a quiet, offline, single-threaded environment, and the shipped example."""

import os
from pathlib import Path

# Before anything imports torch, ray or vllm. Spinning threads would fight over the two cores that tests get.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from hypothesis import settings

from tests.support import ROOT

# A busy machine must not fail a property: none is about time.
settings.register_profile("prunesweep", deadline=None)
settings.load_profile("prunesweep")

LONGEST = (
    "test_fault_matrix.py",
    "test_driver_kills.py",
    "test_sweep_end_to_end.py",
    "test_halved_sweeps.py",
    "test_drill.py",
    "test_ray_jobs.py",
    "test_ray_drain.py",
)
"""Begun first, so that two processes end together: a file is the work of one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The shipped tiny reasoner."""
    return ROOT / "examples" / "tiny" / "model"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder of the tests' own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PRUNESWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def sweep(tmp_path: Path):
    """A `TinySweep` in an empty folder of its own."""
    from tests.support.builders import TinySweep

    return TinySweep(tmp_path)
