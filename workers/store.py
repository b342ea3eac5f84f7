"""What workers need of a store: its protocol and its errors. Pure.

`StoreError` is for whatever a person must know. `StoreUnavailable` is for a file system that refuses, with one of three
kinds of trouble, each with its own remedy: room, rights, or time. Both pickle.
"""

import errno
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from workers.rows.tables import DrawRow, GradeRow


class Trouble(StrEnum):
    """Why the store's file system refused."""

    FULL = "full"
    """No room on the disk, over a quota, or a file too large. Retrying is useless until somebody makes room."""
    REFUSED = "refused"
    """Read-only, no permission, or no such folder or bucket. Retrying is useless."""
    UNREACHABLE = "unreachable"
    """An input/output error, the network, or a service still overloaded after retries. May pass by itself."""


REMEDIES = {
    Trouble.FULL: "make room there, or give another store, and run the same command again",
    Trouble.REFUSED: "give a folder that can be written and read, or the rights to this one",
    Trouble.UNREACHABLE: "run the same command again when it can be reached: what was committed is kept",
}

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EINVAL,
}  # fmt: skip
# Object storage has no errno: pyarrow gives the service's error code as text.
_REFUSING_ANSWERS = (
    "ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "UNRECOGNIZED_CLIENT",
    "MISSING_AUTHENTICATION_TOKEN", "INVALID_SIGNATURE",
)  # fmt: skip


class StoreError(Exception):
    """The store cannot be used; the message names the store, the cause and the remedy."""


class StoreUnavailable(StoreError):
    """The store's file system refused. Everything committed before is stored; what was being written is not."""

    def __init__(self, message: str, trouble: Trouble) -> None:
        super().__init__(message)
        self.trouble = trouble

    def __reduce__(self) -> tuple[type["StoreUnavailable"], tuple[str, Trouble]]:
        return (StoreUnavailable, (str(self), self.trouble))


def trouble_of(error: OSError) -> Trouble:
    """Classifies an error of the operating system or of object storage; an unknown one is UNREACHABLE."""
    if error.errno in _FULL:
        return Trouble.FULL
    if error.errno in _REFUSED:
        return Trouble.REFUSED
    if error.errno is None and any(answer in str(error) for answer in _REFUSING_ANSWERS):
        return Trouble.REFUSED
    return Trouble.UNREACHABLE


def unavailable(store: str, what: str, error: OSError) -> StoreUnavailable:
    """The StoreUnavailable to raise for `error`. `what` says what failed: "draws/c cannot be read"."""
    trouble = trouble_of(error)
    cause = " ".join(str(error).split())[:300]
    return StoreUnavailable(f"store {store}: {what} ({trouble}): {cause}; {REMEDIES[trouble]}", trouble)


class WorkerStore(Protocol):
    """The part of the store that workers need. The driver hands one over, so that workers import no orchestrator.

    Every method raises `StoreUnavailable` if the store's file system refuses.
    """

    def commit_draws(self, rows: Sequence[DrawRow]) -> str: ...
    def commit_grades(self, rows: Sequence[GradeRow]) -> str: ...
    def read(self, table: str, context_id: str, columns: list[str] | None = None) -> pa.Table: ...
    def patch_ids(self) -> frozenset[str]: ...
    def publish_patch(self, folder: Path, patch_id: str) -> None: ...
    def fetch_patch(self, patch_id: str, cache: Path) -> Path: ...
    def fetch_traces(self, name: str, cache: Path) -> Path: ...
