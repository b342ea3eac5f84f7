"""A store that is full, read-only or out of reach: a clear error of a kind, and nothing torn."""

import contextlib
import os
import pickle
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store.compaction import compact
from orchestrator.store.store import Store, StoreUnavailable, Trouble
from tests.support.builders import make_failure, make_grade, make_row
from workers.store import unavailable


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A disk of 256 KiB at `folder` if this process may mount one; else a limit on the size of every file."""
    folder.mkdir(exist_ok=True)
    if _mount("-t", "tmpfs", "-o", "size=256k", "prunesweep-test", str(folder)):
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """`folder` as a read-only mount if this process may make one; else without the right to write, which binds all but
    root."""
    if _mount("--bind", str(folder), str(folder)):
        try:
            assert _mount("-o", "remount,bind,ro", str(folder))
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    if os.geteuid() == 0:  # a container's root: the folder made immutable
        subprocess.run(["chattr", "-R", "+i", str(folder)], check=True)
        try:
            yield
        finally:
            subprocess.run(["chattr", "-R", "-i", str(folder)], check=True)
        return
    inside = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in inside:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in inside:
            path.chmod(0o755)


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def files(store: Store) -> dict[Path, bytes]:
    """Every file of the store, hidden ones too."""
    return {path: path.read_bytes() for path in Path(store.root).rglob("*") if path.is_file()}


def large_row(prompt: str):
    """A row that random text makes larger than the disk."""
    return make_row(prompt=prompt, text=os.urandom(300_000).hex())


def test_full_disk_is_told_as_such_and_keeps_what_was_committed(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk"):
        store = Store.open(str(tmp_path / "disk" / "store"))
        store.check_writable()
        store.commit_draws([make_row(prompt="p0")])
        store.commit_draws([make_row(prompt="p1")])
        before = files(store)
        with pytest.raises(StoreUnavailable, match=r"cannot be written \(full\).*make room there") as caught:
            store.commit_draws([large_row("p2")])
        assert caught.value.trouble is Trouble.FULL
        assert store.uri in str(caught.value)
        assert files(store) == before
        # What a full disk still takes, it takes: the next small commit is whole.
        store.commit_draws([make_row(prompt="p3")])
        assert store.stored_draws("c") == {("c", f"p{number}", 0) for number in (0, 1, 3)}
        assert store.reported == set()


def test_disk_that_fills_up_while_a_patch_is_published_holds_no_patch(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "layer-00000.safetensors").write_bytes(os.urandom(300_000))
    (made / "manifest.json").write_text("{}")
    with full_disk(tmp_path / "disk"):
        store = Store.open(str(tmp_path / "disk" / "store"))
        with pytest.raises(StoreUnavailable) as caught:
            store.publish_patch(made, "patch")
        assert caught.value.trouble is Trouble.FULL
        assert store.patch_ids() == frozenset()
        assert files(store) == {}


def test_read_only_store_is_refused_before_a_sweep_and_read_all_the_same(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.commit_draws([make_row(prompt="p0")])
    store.commit_draws([make_row(prompt="p1")])
    before = files(store)
    with read_only(tmp_path / "store"):
        for write in (
            store.check_writable,
            lambda: store.commit_draws([make_row(prompt="p2")]),
            lambda: store.commit_grades([make_grade()]),
            lambda: store.commit_failures([make_failure()]),
            lambda: store.put_payload("id", {"a": 1}),
            lambda: compact(store, "draws", "c"),
        ):
            with pytest.raises(StoreUnavailable, match="give a folder that can be written") as caught:
                write()
            assert caught.value.trouble is Trouble.REFUSED
            assert store.uri in str(caught.value)
        assert files(store) == before
        assert store.stored_draws("c") == {("c", "p0", 0), ("c", "p1", 0)}
    store.commit_draws([make_row(prompt="p2")])


@pytest.mark.parametrize("below", ["", "store", "deep/store"])
def test_place_that_cannot_be_a_store_is_named_with_a_remedy(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("a file is in the way")
    uri = str(tmp_path / "file" / below)
    with pytest.raises(StoreUnavailable, match=r"cannot be written \(refused\)") as caught:
        Store.open(uri).check_writable()
    assert uri in str(caught.value)
    assert "give a folder that can be written" in str(caught.value)


def test_error_crosses_a_process_border_with_its_kind() -> None:
    error = unavailable("/shared", "draws/c cannot be read", OSError(5, "Input/output error"))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.trouble) == (str(error), Trouble.UNREACHABLE)
    assert "run the same command again" in str(copy)
