"""A compactor killed with `kill -9` at each of its steps: readers see the same rows, and nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store.compaction import compact, compact_finished
from orchestrator.store.files import ABANDONED_SECONDS
from orchestrator.store.store import Store, load_draws
from tests.support import ROOT
from tests.support.builders import make_row

PARTS = 3
COMPACTOR = """
import os, signal, sys
from orchestrator.store.compaction import compact
from orchestrator.store.store import Store

store, left = Store.open(sys.argv[1]), int(sys.argv[2])

def pass_step():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

def audit(event, arguments):  # the temporary file is to be opened, and renamed
    path = str(arguments[0]) if arguments else ""
    if event in ("open", "os.rename") and path.startswith(store.root) and path.endswith(".tmp"):
        pass_step()

def profile(frame, event, argument):  # pyarrow removes files, which Python's audit does not tell of
    if event == "call" and frame.f_code.co_name == "remove" and frame.f_code.co_filename.endswith("files.py"):
        pass_step()

sys.addaudithook(audit)
sys.setprofile(profile)
compact(store, "draws", "c")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "store"))
    for number in range(PARTS):
        store.commit_draws([make_row(prompt=f"p{number}"), make_row(prompt=f"q{number}")])
    return store


def files(store: Store) -> set[str]:
    return {file.name for file in Path(store.root, "draws", "c").iterdir()}


def compact_and_die(store: Store, step: int) -> int:
    """Compact in a process that is killed at its `step`-th change to the store. Returns its exit status."""
    return subprocess.run([sys.executable, "-c", COMPACTOR, store.uri, str(step)], cwd=ROOT).returncode


@pytest.mark.parametrize(("step", "left"), [(1, 3), (2, 3), (3, 3), (4, 2), (5, 1)])
def test_reader_sees_the_same_whatever_step_a_compactor_is_killed_at(store: Store, step: int, left: int) -> None:
    """Killed before it writes, before it renames, and before it removes the first, the second and the last part."""
    before, parts = store.read("draws", "c"), files(store)
    assert compact_and_die(store, step) == -signal.SIGKILL
    assert len(parts & files(store)) == left
    assert Store.open(store.uri).read("draws", "c").equals(before)
    assert load_draws(store, ["seed"]).num_rows == before.num_rows
    compact(store, "draws", "c")
    (whole,) = {name for name in files(store) if not name.startswith(".")}
    assert whole not in parts
    assert Store.open(store.uri).read("draws", "c").equals(before)
    assert store.reported == set()


def test_what_a_killed_writer_left_is_removed_after_a_day_and_not_before(store: Store) -> None:
    assert compact_and_die(store, 2) == -signal.SIGKILL
    (scratch,) = {name for name in files(store) if name.startswith(".")}
    file = Path(store.root, "draws", "c", scratch)
    patch = Path(store.root, "patches", "p", scratch)
    patch.parent.mkdir(parents=True)
    patch.write_bytes(b"half a patch")
    for age, there in ((ABANDONED_SECONDS - 60, True), (ABANDONED_SECONDS + 60, False)):
        for each in (file, patch):
            os.utime(each, (time.time() - age,) * 2)
        compact_finished(store, ["c"])
        assert (file.exists(), patch.exists()) == (there, there)
    assert len(store.read("draws", "c")) == 2 * PARTS
