"""Writing files and folders so that they appear whole or not at all.

What is not finished has a name of its own, which ends in the machine's, and is locked by the process that writes it
(flock). A killed process holds no lock any more, so whoever begins to write in the same folder on the same machine
removes what it left, and never what a live process is writing. Where the file system has no such locks, nothing is
removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where values derived from content are kept between runs: $PRUNESWEEP_CACHE, else ~/.cache/prunesweep."""
    named = os.environ.get("PRUNESWEEP_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "prunesweep"


def write_atomically(file: Path, content: bytes) -> None:
    """Write beside `file`, flush to disk and rename: a reader sees the old content or the new, never a part."""
    with _unfinished(file.parent, file.name, is_folder=False) as (working, descriptor):
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(working, file)


@contextmanager
def folder_in_one_piece(destination: Path) -> Iterator[Path]:
    """Yield an empty folder beside `destination` and rename it there on success; on any error remove it.

    It and its files get the modes that the umask gives to new ones. Raises ValueError if the destination exists:
    nothing is ever overwritten.
    """
    with unfinished_copy(destination) as working:
        yield working
        move_into_place(working, destination)


@contextmanager
def unfinished_copy(destination: Path) -> Iterator[Path]:
    """An empty folder beside `destination`, for `move_into_place`; removed in the end unless that was called.

    Raises ValueError if the destination exists.
    """
    if destination.exists():
        raise ValueError(f"{destination}: already exists; choose another folder or remove it first.")
    with unfinished_folder(destination.parent, destination.name) as working:
        yield working


def move_into_place(working: Path, destination: Path) -> None:
    """Flush a folder's files, give them the umask's modes, and rename the folder.

    Raises ValueError if the destination exists.
    """
    allowed = working.stat().st_mode
    for entry in sorted(working.rglob("*")):
        if entry.is_file():
            entry.chmod(allowed & 0o666)  # safetensors writes 0600, whatever the umask
        _sync(entry)
    _sync(working)
    try:
        os.rename(working, destination)
    except OSError as error:
        raise ValueError(f"{destination}: appeared while it was being written ({error.strerror}).") from None
    _sync(destination.parent)


@contextmanager
def unfinished_folder(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder in `parent`, which is removed in the end, or after a kill by the next call for this `parent`."""
    with _unfinished(parent, name, is_folder=True) as (working, _):
        yield working


@contextmanager
def one_at_a_time(file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Let one process of this machine at a time into the block; `file` stands for it, and stays, empty.

    `waiting` is called if another is in it. A killed process is in it no more. Where the file system has no locks,
    nobody waits.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _lock(descriptor, where_there_are_none=True):
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def file_digest(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _unfinished(parent: Path, name: str, *, is_folder: bool) -> Iterator[tuple[Path, int]]:
    """A new file or folder, as the umask has it, under a name of its own in `parent`; removed unless it was renamed."""
    parent.mkdir(parents=True, exist_ok=True)
    _clear(parent)
    working, descriptor = _claim(parent, name, is_folder)
    try:
        yield working, descriptor
    finally:
        try:
            _remove(working)
        finally:
            os.close(descriptor)


def _claim(parent: Path, name: str, is_folder: bool) -> tuple[Path, int]:
    while True:
        path = parent / f".{name}.{secrets.token_hex(4)}{_mark()}"
        if is_folder:
            path.mkdir()
        try:
            descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            if is_folder:  # cleared before it was locked
                continue
            raise
        if _lock(descriptor, where_there_are_none=True) and _is_at(path, descriptor):
            return path, descriptor
        os.close(descriptor)


def _clear(parent: Path) -> None:
    """Remove from `parent` what killed processes of this user and machine left."""
    for entry in parent.iterdir():
        if not (entry.name.startswith(".") and entry.name.endswith(_mark())):
            continue
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # finished meanwhile, or another user's
            continue
        try:
            if os.fstat(descriptor).st_uid == os.getuid() and _lock(descriptor, where_there_are_none=False):
                _remove(entry)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, where_there_are_none: bool) -> bool:
    """Whether this process has the lock now. `where_there_are_none`: the answer for a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return where_there_are_none
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _mark() -> str:
    return f"@{socket.gethostname()}.unfinished"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
