"""What every worker process is: it takes tasks from its inbox and reports as it goes. Backends host it."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from workers.failure import Failure
from workers.messages import Report, Shard, Task, WorkerInfo


class Inbox:
    """A worker's queue of tasks: one thread adds them, another takes them. Closing it drops what is queued."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def closes_within(self, seconds: float) -> bool:
        """Wait for the inbox to be closed, up to `seconds`; returns whether it is."""
        return self._closed.wait(seconds)

    def put(self, task: Task) -> None:
        """Add a task at the end of the queue."""
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()

    def close(self) -> None:
        """Drop the queued tasks; the running one is to end soon."""
        with self._changed:
            self._closed.set()
            self._tasks.clear()
            self._changed.notify()

    def take(self) -> Task | None:
        """The next task, as soon as there is one; None when the inbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self.closed)
            return self._tasks.popleft() if self._tasks else None

    def take_shard(self, patch_id: str) -> Shard | None:
        """The next task if it is a shard of this patch, without waiting."""
        with self._changed:
            head = self._tasks[0] if self._tasks else None
            if isinstance(head, Shard) and head.context.patch_id == patch_id:
                self._tasks.popleft()
                return head
            return None


class WorkerFault(Exception):
    """The worker cannot be trusted any more and must be killed. What it committed remains valid."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure = failure

    def __reduce__(self) -> tuple[type["WorkerFault"], tuple[Failure]]:
        return (WorkerFault, (self.failure,))


class Worker(Protocol):
    """One worker. `run` ends every task with a report, `TaskEnded` or `TaskFailed`, or raises `WorkerFault`; it raises
    nothing else on purpose."""

    def facts(self) -> WorkerInfo: ...
    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        """Do `task`, and whatever of `inbox` can be done along with it. If the inbox closes, end soon."""
        ...

    def close(self) -> None: ...


def serve(worker: Worker, inbox: Inbox) -> Iterator[Report]:
    """All reports of a worker: it runs the tasks of its inbox until that is closed, and then closes."""
    while (task := inbox.take()) is not None:
        yield from worker.run(task, inbox)
    worker.close()
