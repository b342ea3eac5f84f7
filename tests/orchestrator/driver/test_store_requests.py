"""The driver's business with the store: how often it looks, and what it makes of a store that refuses."""

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

    looked_at: list[str] = field(default_factory=list)
    refusals: list[StoreError] = field(default_factory=list)

    def read(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> pa.Table:
        self.looked_at.append(context_id)
        if self.refusals:
            raise self.refusals.pop()
        return super().read(table, context_id, columns)


def errands_of(sweep: TinySweep, store: Store) -> tuple[StoreRequests, list[str]]:
    """Errands of a sweep, with a patience of 60 s, and the ids of its contexts."""
    contexts = {owed.decoding.context.context_id: owed for owed in sweep.plan().contexts}
    return StoreRequests(store, contexts, 60.0, lambda line: None), list(contexts)


def test_slices_that_are_lost_together_take_one_look_at_each_context(sweep: TinySweep) -> None:
    sweep.budget["independent_limits"] = True
    assert sweep.run() == "done"
    sweep.seeds = (0, 1, 2)  # every third draw is not there yet
    store = WatchedStore(sweep.store.files)
    errands, (first, second) = errands_of(sweep, store)
    for number in range(12):
        errands.recount(ShardNumbers(f"a-{number}", first, (number,)))
        errands.recount(ShardNumbers(f"b-{number}", second, (number,)))
    heard: list[Event] = []
    turns = 0
    while len(heard) < 24:
        heard += errands.run(now=0.0)
        turns += 1
    assert (store.looked_at, turns) == ([first, second], 2)
    missing = {event.task_id: event.missing for event in heard if isinstance(event, MissingFound)}
    wanted = {number: frozenset({number} if number % 3 == 2 else ()) for number in range(12)}
    assert missing == {f"{context}-{number}": one for context in "ab" for number, one in wanted.items()}
    assert errands.run(now=0.0) == []


def test_context_that_changes_faster_than_it_can_be_read_is_read_again_later(sweep: TinySweep) -> None:
    errands, (context,) = errands_of(sweep, WatchedStore(sweep.store.files, refusals=[StoreError("it changes")]))
    errands.recount(ShardNumbers("slice", context, (1, 2)))
    assert errands.run(now=0.0) == []
    assert errands.run(now=1.0) == [MissingFound("slice", frozenset({1, 2}))]


def test_store_that_refuses_for_good_ends_the_sweep_and_what_was_not_counted_is_owed(sweep: TinySweep) -> None:
    refusals = [StoreError("no answer") for _ in range(3)]
    errands, (context,) = errands_of(sweep, WatchedStore(sweep.store.files, refusals=refusals))
    errands.recount(ShardNumbers("slice", context, (1, 2)))
    assert errands.run(now=0.0) == errands.run(now=60.0) == []
    stop, recounted = errands.run(now=61.0)
    assert isinstance(stop, StopRequested)
    assert "no answer" in stop.reason
    assert recounted == MissingFound("slice", frozenset({1, 2}))
