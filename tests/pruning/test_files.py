"""Files and folders appear whole or not at all."""

from __future__ import annotations

import pytest

from pruning.files import folder_in_one_piece, write_atomically


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


def test_folder_appears_when_done_and_others_may_read_it(tmp_path):
    with folder_in_one_piece(tmp_path / "made") as working:
        (working / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a").read_text() == "1"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


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
