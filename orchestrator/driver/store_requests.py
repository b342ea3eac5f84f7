"""What the driver asks of the store: which draws of a lost shard are missing, and to record draws that are given up.

A store that refuses is asked again at every turn. After `patience` seconds of refusals the sweep is asked to stop and
the requests are dropped: unchecked draws count as missing, which the next run corrects, and a failure that was not
recorded is owed again anyway.
"""

import time
from collections.abc import Callable, Mapping

from orchestrator.plan.plan import OwedContext
from orchestrator.plan.stored import still_owed
from orchestrator.scheduler.events import Event, MissingFound, RecordFailures, ShardNumbers, StopRequested
from orchestrator.store.store import Store
from workers.rows.tables import FailureRow
from workers.store import StoreError


class StoreRequests:
    """The driver's own requests to the store. They are queued, and `run` carries them out."""

    def __init__(
        self, store: Store, contexts: Mapping[str, OwedContext], patience: float, say: Callable[[str], None]
    ) -> None:
        self._store, self._contexts, self._patience, self._say = store, contexts, patience, say
        self._to_check: list[ShardNumbers] = []
        self._failures: list[tuple[RecordFailures, float]] = []
        self._refused_since: float | None = None

    def find_missing(self, numbers: ShardNumbers) -> None:
        """Request which of these draws are not stored; `run` returns the answer as `MissingFound`."""
        self._to_check.append(numbers)

    def record(self, command: RecordFailures) -> None:
        """Request that draws are recorded as given up."""
        self._failures.append((command, time.time()))

    def run(self, now: float) -> list[Event]:
        """Carry out requests as far as the store allows; returns the resulting events.

        Per turn, check one context's shards: a large context takes seconds to read, and workers' reports must not wait.
        """
        events: list[Event] = []
        try:
            self._write_failures()
            if self._to_check:
                events += self._check(self._to_check[0].context_id)
        except StoreError as error:
            return events + self._refused(error, now)
        self._refused_since = None
        return events

    def finish(self) -> None:
        """Write the remaining failures if the store takes them now, without waiting for it."""
        try:
            self._write_failures()
        except StoreError as error:
            draws = sum(len(command.numbers) for command, _ in self._failures)
            self._say(f"{error}; {draws} draws that were given up are not recorded as such, and are owed all the same")

    def _write_failures(self) -> None:
        while self._failures:
            self._store.commit_failures(self._rows(*self._failures[0]))
            del self._failures[0]

    def _refused(self, error: StoreError, now: float) -> list[Event]:
        if self._refused_since is None:
            self._refused_since = now
            self._say(f"{error}; waiting for it, {self._patience:.0f} s at most")
        if now - self._refused_since <= self._patience:
            return []
        events: list[Event] = [StopRequested(f"the store cannot be used: {error}")]
        events += [MissingFound(one.task_id, frozenset(one.numbers)) for one in self._to_check]
        self._to_check.clear()
        self._failures.clear()
        return events

    def _check(self, context_id: str) -> list[Event]:
        """Check all shards of one context by one read: a lost node leaves many shards."""
        owed = self._contexts[context_id]
        shards = [one for one in self._to_check if one.context_id == context_id]
        items = owed.items([number for one in shards for number in one.numbers])
        missing = still_owed(self._store, context_id, owed.decoding.context.answer_context_id, items)
        self._to_check = [one for one in self._to_check if one.context_id != context_id]
        return [MissingFound(one.task_id, missing & frozenset(one.numbers)) for one in shards]

    def _rows(self, command: RecordFailures, created_at: float) -> list[FailureRow]:
        return [
            FailureRow(
                context_id=command.context_id,
                prompt_id=item.prompt_id,
                seed=item.job.seed,
                benchmark=item.benchmark,
                problem_id=item.job.problem_id,
                kind=command.failure.kind,
                cause=command.failure.cause,
                attempts=command.attempts,
                log=command.failure.log,
                created_at=created_at,
            )
            for item in self._contexts[command.context_id].items(command.numbers)
        ]
