"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pruning.files import folder_in_one_piece, unfinished_folder, write_atomically
from tests.support import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from pruning.files import folder_in_one_piece, unfinished_folder

folder = Path(sys.argv[1])
with folder_in_one_piece(folder / "patch") as working, unfinished_folder(folder, "scratch") as scratch:
    (working / "layer").write_text("1")
    (scratch / "gradient").write_text("1")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def umask():
    """Sets the umask, and sets it back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    file = tmp_path / "new" / "value.json"
    write_atomically(file, b"first")
    write_atomically(file, b"second")
    assert file.read_bytes() == b"second"
    assert [entry.name for entry in file.parent.iterdir()] == ["value.json"]


def test_failed_write_leaves_what_was_there(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_folder_appears_when_done(tmp_path):
    with folder_in_one_piece(tmp_path / "made") as working:
        (working / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a").read_text() == "1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize(
    ("mask", "folder", "file"), [(0o022, 0o755, 0o644), (0o002, 0o775, 0o664), (0o077, 0o700, 0o600)]
)
def test_modes_are_the_umasks(tmp_path, umask, mask, folder, file):
    umask(mask)
    with folder_in_one_piece(tmp_path / "made") as working:
        (working / "a").touch(0o600)  # as safetensors does
        write_atomically(working / "b", b"")
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.rglob("*")}
    assert modes == {"made": folder, "a": file, "b": file}


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_live_one_writes_is_not(tmp_path):
    with folder_in_one_piece(tmp_path / "live") as live:
        (live / "mine").write_text("1")
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT)
        assert done.returncode == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 3  # the live one, and what was left of a patch and of a scratch folder
        with unfinished_folder(tmp_path, "next") as working:
            assert sorted(tmp_path.iterdir()) == sorted([live, working])
    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*"))] == ["live", "live/mine"]


def make(destination, meanwhile):
    with folder_in_one_piece(destination) as working:
        (working / "mine").write_text("1")
        meanwhile()


def test_folder_disappears_on_any_error(tmp_path):
    with pytest.raises(ZeroDivisionError):
        make(tmp_path / "made", lambda: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_exists_or_appears_meanwhile_is_not_touched(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="already exists"):
        make(tmp_path / "there", lambda: None)
    with pytest.raises(ValueError, match="appeared while"):
        make(tmp_path / "late", lambda: (tmp_path / "late" / "theirs").mkdir(parents=True))
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")) == ["late", "late/theirs", "there"]
