"""MLflow's database: there whole or not at all, whatever kills the process that makes it."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.__main__ import main
from tests.support import ROOT

GRID = str(ROOT / "examples" / "tiny" / "grid.yaml")

SYNC_THAT_DIES = """
import os, signal, sys
from itertools import count
from sqlalchemy import Engine, event
from orchestrator.__main__ import main

seen = count(1)

@event.listens_for(Engine, "after_cursor_execute")
def die_amid_the_migrations(_connection, _cursor, statement, *_):
    if statement.lstrip().startswith("CREATE TABLE") and next(seen) == 20:
        os.kill(os.getpid(), signal.SIGKILL)

main(["sync", *sys.argv[1:]])
"""


def test_process_killed_amid_the_making_of_the_database_leaves_none_and_the_next_makes_it(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    died = subprocess.run(
        [sys.executable, "-c", SYNC_THAT_DIES, GRID, "--store", store], cwd=ROOT, capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not Path(store, "mlflow.db").exists()
    assert main(["sync", GRID, "--store", store]) == 0
    assert [file.name for file in Path(store).glob("mlflow.db*")] == ["mlflow.db"], "what the dead one left is swept up"
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    assert [e.name for e in client.search_experiments(filter_string="name = 'prunesweep'")] == ["prunesweep"]


def test_disk_without_hard_links_takes_the_database_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source)

    monkeypatch.setattr(os, "link", refuse)
    assert main(["sync", GRID, "--store", str(tmp_path)]) == 0
    assert [file.name for file in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]
