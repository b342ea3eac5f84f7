"""What a worker has been given and has not begun. One thread puts tasks in, another takes them out."""

import threading
from collections import deque

from workers.messages import Shard, Task


class Inbox:
    """A queue of tasks that can be closed: then what waits in it is dropped, and the running task ends soon."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def closes_within(self, seconds: float) -> bool:
        """Wait so long, or until the inbox is closed; whether it is."""
        return self._closed.wait(seconds)

    def put(self, task: Task) -> None:
        """Add a task behind the others."""
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()

    def close(self) -> None:
        """No more is to be begun."""
        with self._changed:
            self._closed.set()
            self._tasks.clear()
            self._changed.notify()

    def take(self) -> Task | None:
        """The next task, once there is one; None when the inbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self.closed)
            return self._tasks.popleft() if self._tasks else None

    def take_shard(self, patch_id: str) -> Shard | None:
        """The next task if it is there and is a shard of this patch."""
        with self._changed:
            head = self._tasks[0] if self._tasks else None
            if isinstance(head, Shard) and head.context.patch_id == patch_id:
                self._tasks.popleft()
                return head
            return None
