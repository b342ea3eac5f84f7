"""Writing files and folders so that they appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where values derived from content are kept between runs: $PRUNESWEEP_CACHE, else ~/.cache/prunesweep."""
    named = os.environ.get("PRUNESWEEP_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "prunesweep"


def write_atomically(file: Path, content: bytes) -> None:
    """Write beside `file`, flush to disk and rename: a reader sees the old content or the new, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder_in_one_piece(destination: Path) -> Iterator[Path]:
    """Yield an empty folder beside `destination` and rename it there on success; on any error remove it.

    Raises ValueError if the destination exists: nothing is ever overwritten.
    """
    if destination.exists():
        raise ValueError(f"{destination}: already exists; choose another folder or remove it first.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    try:
        yield working
        for entry in sorted(working.rglob("*")):
            _sync(entry)
        working.chmod(0o755)  # mkdtemp's 0700 would lock out the other readers of a shared store
        _sync(working)
        try:
            os.rename(working, destination)
        except OSError as error:
            raise ValueError(f"{destination}: appeared while it was being written ({error.strerror}).") from None
        _sync(destination.parent)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise


def file_digest(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
