"""The files of a store, on a local disk, a shared mount or object storage. The only place that touches them.

Promise committed-is-forever: a file appears whole or not at all. On a disk it is written under a temporary name,
flushed and renamed; on object storage it is uploaded under its own name, and an upload that fails leaves nothing.
Readers never see temporary names. No file locks: they do nothing on many shared file systems.

Everything here raises `StoreUnavailable`, and no `OSError`: with the place, the cause and the remedy.
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

from orchestrator.store.object_storage import insist, open_object_storage
from workers.store import unavailable

PATIENCE = 100
"""How often a listing is repeated while files vanish from under it."""

SCRATCH = ".tmp"
LEFT_BEHIND_SECONDS = 24 * 3600
"""By a file's own time, which may be another machine's: a day is more than clocks differ."""


@dataclass(frozen=True)
class Found:
    """A file that a listing showed."""

    path: str
    """From the store's root on: `draws/<context>/<part>.parquet`."""
    size: int

    @property
    def folder(self) -> str:
        return self.path.split("/")[-2]

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass
class Files:
    """The files under one root. It pickles, and opens its file system anew where it is unpickled."""

    uri: str
    root: str
    local: bool
    _filesystem: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, uri: str) -> "Files":
        """Files at a local path or under `s3://bucket/prefix`. Raises StoreError for any other kind of place."""
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
        """Make a file of this content appear, whole; one that is there under the same name is replaced, whole."""
        with self._told(f"{path} cannot be written"):
            if not self.local:
                self._upload(f"{self.root}/{path}", content)
                return
            target = Path(self.root, path)
            with _written_beside(target, content) as scratch:
                scratch.rename(target)

    def create(self, path: str, content: bytes) -> bool:
        """Publish a file unless there is one of its name; returns whether it was published.

        Of two that create at once, one is told no. Object storage, and disks without hard links, cannot tell: there the
        last one's content stays, and each must look again.
        """
        with self._told(f"{path} cannot be written"):
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
        # All of it in one write, and no `with`: leaving a `with` by an exception completes the upload of whatever was
        # written until then, and publishes half a file.
        # compression=None: pyarrow would compress what is called .gz once more.
        sink = self.filesystem.open_output_stream(target, compression=None)
        sink.write(content)
        sink.close()

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is fine."""
        with self._told(f"{path} cannot be removed"), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.root}/{path}")

    def remove_left_behind(self, folder: str) -> None:
        """Remove temporary files below a folder whose writers must be dead: nobody writes one file for a day.

        Object storage has none.
        """
        if not self.local:
            return
        with self._told(f"{folder} cannot be swept"):
            for scratch in Path(self.root, folder).rglob(f".*{SCRATCH}"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - scratch.stat().st_mtime > LEFT_BEHIND_SECONDS:
                        scratch.unlink()

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes | None:
        """All of a file, or None if there is none."""
        try:
            content: bytes = self.fetch(path).to_pybytes()
        except FileNotFoundError:
            return None
        return content

    def fetch(self, path: str) -> pa.Buffer:
        """All of a file. Raises FileNotFoundError if there is none."""

        def fetch() -> pa.Buffer:
            with self.filesystem.open_input_file(f"{self.root}/{path}") as source:
                return source.read_buffer()

        try:
            return fetch() if self.local else insist(fetch)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unavailable(self.uri, f"{path} cannot be read", error) from error

    def open_file(self, found: Found) -> Any:
        """A listed file, to be read in places. Raises OSError: what it means depends on what the caller reads."""
        return self.filesystem.open_input_file(f"{self.root}/{found.path}")

    def exists(self, path: str) -> bool:
        with self._told(f"{path} cannot be looked for"):
            return bool(self.filesystem.get_file_info(f"{self.root}/{path}").type != fs.FileType.NotFound)

    def listing(self, folder: str) -> list[Found]:
        """Every file below a folder, by name; none if there is no such folder.

        A listing takes a moment, in which compaction may put one file in the place of many: the one may have come too
        late to be listed, and the many may have gone too early. A disk's folder is therefore listed until nothing that
        one listing showed is missing from the next, which proves that nothing was missed. Object storage lists by name,
        and the one sorts after the many.
        """
        with self._told(f"{folder} cannot be listed"):
            found = self._list_once(folder)
            for _ in range(PATIENCE if self.local else 0):
                before, found = found, self._list_once(folder)
                if {file.path for file in before} <= {file.path for file in found}:
                    break
            return found

    def _list_once(self, folder: str) -> list[Found]:
        selector = fs.FileSelector(f"{self.root}/{folder}", recursive=True, allow_not_found=True)
        infos = (info for info in self.filesystem.get_file_info(selector) if info.is_file)
        found = (Found(info.path[len(self.root) + 1 :], info.size) for info in infos)
        return sorted((file for file in found if not file.name.startswith(".")), key=lambda file: file.path)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unavailable(self.uri, what, error) from error


@contextlib.contextmanager
def _written_beside(target: Path, content: bytes | pa.Buffer) -> Iterator[Path]:
    """A flushed file of this content under a temporary name beside `target`, which is gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{uuid.uuid4().hex}{SCRATCH}"
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield scratch
    finally:
        with contextlib.suppress(OSError):  # a read-only disk refuses this, too, and has nothing to remove
            scratch.unlink(missing_ok=True)
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Make the new name outlast a power cut; not every file system has such a thing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
