"""What every worker process is: it takes tasks from its inbox and reports as it goes. Backends host it; Ray is one."""

from collections.abc import Iterator
from typing import Protocol

from workers.failure import Failure
from workers.inbox import Inbox
from workers.messages import Report, Task, WorkerInfo


class WorkerFault(Exception):
    """The worker cannot be trusted any more and must be discarded. What it committed remains valid."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure = failure

    def __reduce__(self) -> tuple[type["WorkerFault"], tuple[Failure]]:
        return (WorkerFault, (self.failure,))


class Worker(Protocol):
    """One worker. `run` ends every task that it takes with a report, `TaskEnded` or `TaskFailed`; it raises
    `WorkerFault`, and nothing else on purpose."""

    def facts(self) -> WorkerInfo: ...
    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        """Do `task`, and whatever of `inbox` can be done along with it. If the inbox closes, end soon."""
        ...

    def close(self) -> None: ...


def serve(worker: Worker, inbox: Inbox) -> Iterator[Report]:
    """Everything that a worker ever says: it does what comes into its inbox until that is closed, and then closes."""
    while (task := inbox.take()) is not None:
        yield from worker.run(task, inbox)
    worker.close()
