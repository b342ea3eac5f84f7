"""A worker's inbox, and how it is served: in order, until it is closed."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.builders import make_context
from workers.messages import GradeTask, Report, Shard, Task, TaskEnded, WorkerInfo
from workers.worker import Inbox, serve

TASKS = [GradeTask(f"task-{number}", "c", "answers", ()) for number in range(3)]


@dataclass
class Ender:
    """A worker that ends every task at once, and its inbox with the task `last`."""

    inbox: Inbox
    last: str
    closed: bool = field(default=False)

    def facts(self) -> WorkerInfo:
        return WorkerInfo("ender", "host", 1)

    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        if task.task_id == self.last:
            inbox.close()
        yield TaskEnded(task.task_id)

    def close(self) -> None:
        self.closed = True


def test_tasks_are_run_in_order_and_those_behind_the_close_are_dropped() -> None:
    inbox = Inbox()
    for task in TASKS:
        inbox.put(task)
    worker = Ender(inbox, last="task-1")
    assert list(serve(worker, inbox)) == [TaskEnded("task-0"), TaskEnded("task-1")]
    assert worker.closed
    assert inbox.take() is None


def test_a_shard_is_taken_ahead_only_if_it_is_next_and_of_the_same_patch() -> None:
    inbox = Inbox()
    shards = [Shard(name, make_context("c", patch), ()) for name, patch in (("a", "one"), ("b", "two"), ("c", "one"))]
    for shard in shards:
        inbox.put(shard)
    assert inbox.take_shard("one") == shards[0]
    assert inbox.take_shard("one") is None, "a shard of another patch is in front"
    assert inbox.take() == shards[1]
    inbox.put(TASKS[0])
    assert inbox.take_shard("one") == shards[2]
    assert inbox.take_shard("one") is None, "no shard"
