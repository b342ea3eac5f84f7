"""What the driver itself owes the store: recounts of slices, and the record of draws that are given up.

A store that refuses is asked again at every turn. After `patience` seconds of refusal the sweep is asked to stop, and
what was wanted is let go: an uncounted slice counts as not done, which the next run sets right, and an unrecorded
failure is owed again anyway.
"""

import time
from collections.abc import Callable, Mapping

from orchestrator.plan.plan import OwedContext
from orchestrator.plan.stored import still_owed
from orchestrator.scheduler.events import Event, MissingFound, RecordFailures, ShardNumbers, StopRequested
from orchestrator.store.store import Store
from workers.store import StoreError
from workers.tables import FailureRow


class StoreRequests:
    """The driver's own business with the store."""

    def __init__(
        self, store: Store, contexts: Mapping[str, OwedContext], patience: float, say: Callable[[str], None]
    ) -> None:
        self._store, self._contexts, self._patience, self._say = store, contexts, patience, say
        self._slices: list[ShardNumbers] = []
        self._failures: list[tuple[RecordFailures, float]] = []
        self._refused_since: float | None = None

    def recount(self, wanted: ShardNumbers) -> None:
        """Find out which draws of a slice the store holds; `run` gives the answer."""
        self._slices.append(wanted)

    def record(self, command: RecordFailures) -> None:
        """Write down draws that are given up; `run` does it."""
        self._failures.append((command, time.time()))

    def run(self, now: float) -> list[Event]:
        """Do what is owed, as far as the store lets us; returns what came of it.

        Of the recounts those of one context a turn: a large one takes seconds to read, and workers want to be heard.
        """
        events: list[Event] = []
        try:
            self._write_failures()
            if self._slices:
                events += self.plural(self._slices[0].context_id)
        except StoreError as error:
            return events + self._refused(error, now)
        self._refused_since = None
        return events

    def finish(self) -> None:
        """Write what is still to be written, if the store takes it now: nobody waits for it any more."""
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
        events += [MissingFound(one.task_id, frozenset(one.numbers)) for one in self._slices]
        self._slices.clear()
        self._failures.clear()
        return events

    def plural(self, context_id: str) -> list[Event]:
        """Recount all that is to be recounted of one context, by one look at it: a lost node leaves many slices."""
        owed = self._contexts[context_id]
        wanted = [one for one in self._slices if one.context_id == context_id]
        items = owed.items([number for one in wanted for number in one.numbers])
        missing = still_owed(self._store, context_id, owed.decoding.context.answer_context_id, items)
        self._slices = [one for one in self._slices if one.context_id != context_id]
        return [MissingFound(one.task_id, missing & frozenset(one.numbers)) for one in wanted]

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
