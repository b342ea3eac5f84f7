"""The files of a store, on a local disk, a shared mount or object storage. The only place that touches them.

Promise committed-is-forever: a file appears whole or not at all. On a disk it is written under a temporary name,
flushed and renamed; on object storage it is uploaded under its own name, and a failed upload leaves nothing. Readers
never see temporary names. No file locks: they do nothing on many shared file systems.

Everything here raises `StoreUnavailable`, naming the store, the cause and the remedy, instead of `OSError`.
"""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from orchestrator.store.object_storage import open_object_storage, retry_read
from workers.store import unavailable

MAX_LISTINGS = 100
"""How often a folder is listed at most while its files change."""

SCRATCH = ".tmp"
ABANDONED_SECONDS = 24 * 3600
"""Age of a temporary file that counts as abandoned. Clocks of machines differ by less."""


@dataclass(frozen=True)
class ListedFile:
    """A file as a listing showed it."""

    path: str
    """Relative to the store's root: `draws/<context>/<part>.parquet`."""
    size: int

    @property
    def folder(self) -> str:
        return self.path.split("/")[-2]

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass
class Files:
    """The files under one root. It pickles, and reopens its file system where it is unpickled."""

    uri: str
    root: str
    local: bool
    _filesystem: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, uri: str) -> "Files":
        """Files at a local path or under `s3://bucket/prefix`. Raises StoreError for any other address."""
        if "://" not in uri:
            return cls(uri, str(Path(uri).absolute()), local=True)
        filesystem, root = open_object_storage(uri)
        return cls(uri, root, local=False, _filesystem=filesystem)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_filesystem": None}

    @property
    def filesystem(self) -> Any:
        if self._filesystem is None:
            self._filesystem = fs.LocalFileSystem() if self.local else open_object_storage(self.uri)[0]
        return self._filesystem

    # --- writing ------------------------------------------------------------------------------------------------------

    def publish(self, path: str, content: bytes | pa.Buffer) -> None:
        """Write a file atomically: it appears whole, or replaces its predecessor whole."""
        with self._as_unavailable(f"{path} cannot be written"):
            if not self.local:
                self._upload(f"{self.root}/{path}", content)
                return
            target = Path(self.root, path)
            with _written_beside(target, content) as scratch:
                scratch.rename(target)

    def create(self, path: str, content: bytes) -> bool:
        """Publish a file unless one of that name exists; returns whether it was published.

        Exactly one of two concurrent callers gets True. Not so on object storage and on disks without hard links: both
        get True there, the last content stays, and each must read it back.
        """
        with self._as_unavailable(f"{path} cannot be written"):
            if self.local:
                target = Path(self.root, path)
                try:
                    with _written_beside(target, content) as scratch:
                        os.link(scratch, target)
                    return True
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                        raise
        self.publish(path, content)
        return True

    def _upload(self, target: str, content: bytes | pa.Buffer) -> None:
        # One write and no `with`: leaving a `with` by an exception completes the upload and publishes half a file.
        # compression=None: pyarrow would compress what is called .gz once more.
        sink = self.filesystem.open_output_stream(target, compression=None)
        sink.write(content)
        sink.close()

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._as_unavailable(f"{path} cannot be removed"), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.root}/{path}")

    def remove_abandoned(self, folder: str) -> None:
        """Remove temporary files below a folder that killed writers left: nobody writes one file for a day.

        Object storage has none.
        """
        if not self.local:
            return
        with self._as_unavailable(f"the temporary files in {folder} cannot be removed"):
            for scratch in Path(self.root, folder).rglob(f".*{SCRATCH}"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - scratch.stat().st_mtime > ABANDONED_SECONDS:
                        scratch.unlink()

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes | None:
        """A file's content, or None if there is no such file."""
        try:
            content: bytes = self.fetch(path).to_pybytes()
        except FileNotFoundError:
            return None
        return content

    def fetch(self, path: str) -> pa.Buffer:
        """A file's content. Raises FileNotFoundError if there is no such file."""

        def fetch() -> pa.Buffer:
            with self.filesystem.open_input_file(f"{self.root}/{path}") as source:
                return source.read_buffer()

        try:
            return fetch() if self.local else retry_read(fetch)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unavailable(self.uri, f"{path} cannot be read", error) from error

    def open_file(self, found: ListedFile) -> Any:
        """A listed file, opened for random access. Raises OSError: what it means depends on what the caller reads."""
        return self.filesystem.open_input_file(f"{self.root}/{found.path}")

    def exists(self, path: str) -> bool:
        with self._as_unavailable(f"{path} cannot be looked up"):
            return bool(self.filesystem.get_file_info(f"{self.root}/{path}").type != fs.FileType.NotFound)

    def listing(self, folder: str) -> list[ListedFile]:
        """Every file below a folder, sorted by path; none if there is no such folder.

        Compaction may replace many files by one during a listing: the new one may appear too late to be listed, the old
        ones be removed too early. A folder on disk is therefore listed until no file of one listing is missing from the
        next, which proves that none was missed. Object storage lists by name, and the new one sorts last.
        """
        with self._as_unavailable(f"{folder} cannot be listed"):
            found = self._list_once(folder)
            for _ in range(MAX_LISTINGS if self.local else 0):
                before, found = found, self._list_once(folder)
                if {file.path for file in before} <= {file.path for file in found}:
                    break
            return found

    def _list_once(self, folder: str) -> list[ListedFile]:
        infos = (info for info in self._file_infos(folder) if info.is_file)
        found = (ListedFile(info.path[len(self.root) + 1 :], info.size) for info in infos)
        return sorted((file for file in found if not file.name.startswith(".")), key=lambda file: file.path)

    def _file_infos(self, folder: str) -> list[Any]:
        """What pyarrow lists below a folder.

        pyarrow checks that a folder is missing only after it failed to read it, and raises FileNotFoundError for one
        that was created in between. The next listing finds it.
        """
        selector = fs.FileSelector(f"{self.root}/{folder}", recursive=True, allow_not_found=True)
        for _ in range(MAX_LISTINGS - 1):
            with contextlib.suppress(FileNotFoundError):
                return list(self.filesystem.get_file_info(selector))
        return list(self.filesystem.get_file_info(selector))

    @contextlib.contextmanager
    def _as_unavailable(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unavailable(self.uri, what, error) from error


@contextlib.contextmanager
def _written_beside(target: Path, content: bytes | pa.Buffer) -> Iterator[Path]:
    """A flushed file of this content under a temporary name beside `target`; the name is removed afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{uuid.uuid4().hex}{SCRATCH}"
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield scratch
    finally:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too, and has nothing to remove
            scratch.unlink(missing_ok=True)
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Make a new name survive a power cut, on file systems that support it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
