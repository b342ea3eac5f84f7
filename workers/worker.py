"""What every worker process is: it takes a task at a time and reports as it goes. Backends host it; Ray is one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from workers.messages import DrawRow, Facts, Failure, GradeRow, Report, Task


class Sink(Protocol):
    """The part of the store that workers need. The driver hands one over, so that workers import no orchestrator.

    Every method raises `StoreUnavailable` if the store's file system refuses.
    """

    def commit_draws(self, rows: Sequence[DrawRow]) -> str: ...
    def commit_grades(self, rows: Sequence[GradeRow]) -> str: ...
    def read(self, table: str, context_id: str, columns: list[str] | None = None) -> pa.Table: ...
    def patch_ids(self) -> frozenset[str]: ...
    def publish_patch(self, folder: Path, patch_id: str) -> None: ...
    def fetch_patch(self, patch_id: str, cache: Path) -> Path: ...


class TaskFault(Exception):
    """The task failed, its worker is well, and every worker would meet the same fault or deserves another try."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure = failure

    def __reduce__(self) -> tuple[type["TaskFault"], tuple[Failure]]:
        return (TaskFault, (self.failure,))


class WorkerFault(Exception):
    """The worker cannot be trusted any more and must be discarded. What it committed remains valid."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure = failure

    def __reduce__(self) -> tuple[type["WorkerFault"], tuple[Failure]]:
        return (WorkerFault, (self.failure,))


class Worker(Protocol):
    """One worker. `run` yields reports; it raises `TaskFault` or `WorkerFault`, and nothing else on purpose."""

    def facts(self) -> Facts: ...
    def run(self, task: Task) -> Iterator[Report]: ...
    def ask_to_stop(self) -> None:
        """From another thread: commit what is finished and end the running task soon."""
        ...

    def close(self) -> None: ...
