"""The driver's requests to the store: how often it reads, and what it makes of a store that refuses."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from orchestrator.driver.store_requests import StoreRequests
from orchestrator.scheduler.events import Event, MissingFound, ShardNumbers, StopRequested
from orchestrator.store.store import Store
from tests.support.builders import TinySweep
from workers.store import StoreError


@dataclass
class WatchedStore(Store):
    """The real store; it notes which contexts are read, and refuses the first reads with `refusals`."""

    read_contexts: list[str] = field(default_factory=list)
    refusals: list[StoreError] = field(default_factory=list)

    def read(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> pa.Table:
        self.read_contexts.append(context_id)
        if self.refusals:
            raise self.refusals.pop()
        return super().read(table, context_id, columns)


def requests_of(sweep: TinySweep, store: Store) -> tuple[StoreRequests, list[str]]:
    """Requests of a sweep, with a patience of 60 s, and the ids of its contexts."""
    contexts = {owed.decoding.context.context_id: owed for owed in sweep.plan().contexts}
    return StoreRequests(store, contexts, 60.0, lambda line: None), list(contexts)


def test_shards_that_are_lost_together_take_one_read_of_each_context(sweep: TinySweep) -> None:
    sweep.budget["independent_limits"] = True
    assert sweep.run() == "done"
    sweep.seeds = (0, 1, 2)  # every third draw is not there yet
    store = WatchedStore(sweep.store.files)
    requests, (first, second) = requests_of(sweep, store)
    for number in range(12):
        requests.find_missing(ShardNumbers(f"a-{number}", first, (number,)))
        requests.find_missing(ShardNumbers(f"b-{number}", second, (number,)))
    heard: list[Event] = []
    turns = 0
    while len(heard) < 24:
        heard += requests.run(now=0.0)
        turns += 1
    assert (store.read_contexts, turns) == ([first, second], 2)
    missing = {event.task_id: event.missing for event in heard if isinstance(event, MissingFound)}
    wanted = {number: frozenset({number} if number % 3 == 2 else ()) for number in range(12)}
    assert missing == {f"{context}-{number}": one for context in "ab" for number, one in wanted.items()}
    assert requests.run(now=0.0) == []


def test_context_that_changes_faster_than_it_can_be_read_is_read_again_later(sweep: TinySweep) -> None:
    requests, (context,) = requests_of(sweep, WatchedStore(sweep.store.files, refusals=[StoreError("it changes")]))
    requests.find_missing(ShardNumbers("slice", context, (1, 2)))
    assert requests.run(now=0.0) == []
    assert requests.run(now=1.0) == [MissingFound("slice", frozenset({1, 2}))]


def test_store_that_refuses_for_good_ends_the_sweep_and_what_was_not_counted_is_owed(sweep: TinySweep) -> None:
    refusals = [StoreError("no answer") for _ in range(3)]
    requests, (context,) = requests_of(sweep, WatchedStore(sweep.store.files, refusals=refusals))
    requests.find_missing(ShardNumbers("slice", context, (1, 2)))
    assert requests.run(now=0.0) == requests.run(now=60.0) == []
    stop, answer = requests.run(now=61.0)
    assert isinstance(stop, StopRequested)
    assert "no answer" in stop.reason
    assert answer == MissingFound("slice", frozenset({1, 2}))
