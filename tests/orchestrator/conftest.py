"""What the orchestrator's tests share: a cache folder of their own, and tiny sweeps to run."""

from pathlib import Path

import pytest

from tests.orchestrator.builders import TinySweep


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    patch = pytest.MonkeyPatch()
    patch.setenv("PRUNESWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def sweep(tmp_path: Path) -> TinySweep:
    """A sweep in an empty folder of its own."""
    return TinySweep(tmp_path)
