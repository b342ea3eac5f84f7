"""Draws on their way through an engine: fed continuously, committed every few seconds, shard after shard.

As many draws are in flight as the engine's cache has room for, without batch barriers (workers/draws/). When few draws
are left to begin, the driver is asked for more of the same variant (`WantsMore`), so that the engine never idles
between shards. A draw is committed with all its answers or not at all.

While the store cannot be written, finished draws are kept, no draw is begun, and the commit is retried for a while.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from eval.draws import Draw
from eval.prompts import ChatTokenizer
from workers.draws.finished import FinishedDraws
from workers.draws.in_flight import DrawsInFlight, FinishedDraw
from workers.engines.engine import Engine, EngineFault
from workers.failure import Failure, FailureKind
from workers.messages import (
    Committed,
    Context,
    Heartbeat,
    Item,
    Rejected,
    Report,
    Shard,
    StoreBlocked,
    TaskEnded,
    TaskFailed,
    WantsMore,
)
from workers.rows.draw_rows import COLUMNS, join_rows
from workers.rows.tables import DrawRow
from workers.store import StoreUnavailable, WorkerStore
from workers.store_retry import next_pause, retry_while_unavailable
from workers.worker import Inbox

MakeRow = Callable[[Context, Item, Draw], DrawRow]


@dataclass(frozen=True)
class FeedSettings:
    """How draws are fed and committed. Changes speed and the cost of a crash, never an answer."""

    in_flight: int | None = None
    """The most draws at a time, if the cache has room for them; None for as many as the engine decodes at once."""
    commit_seconds: float = 5.0
    heartbeat_seconds: float = 2.0
    store_seconds: float = 600.0
    """How long an unavailable store is retried."""


@dataclass
class _PendingShard:
    """A shard whose stored traces have not been read yet."""

    shard: Shard
    since: float
    pause: float = 0.0
    again_at: float = 0.0


class Evaluation:
    """One variant's draws. Construct it when the engine holds the variant's weights, and call `run` once."""

    def __init__(
        self, engine: Engine, store: WorkerStore, codec: ChatTokenizer, feed: FeedSettings, inbox: Inbox, row: MakeRow
    ) -> None:
        self._engine, self._store, self._feed_settings, self._inbox, self._row = engine, store, feed, inbox, row
        self._patch_id = ""
        self._pending: _PendingShard | None = None
        self._waiting: deque[tuple[Shard, Item]] = deque()
        self._active = DrawsInFlight(engine, codec, feed.in_flight)
        self._finished = FinishedDraws(store)
        self._unsettled: dict[str, int] = {}
        """Task id -> how many of its draws are neither committed nor rejected."""
        self._asked_for_more = False
        """Whether `WantsMore` was reported since the last shard came."""
        self._committed_at = self._beat_at = time.monotonic()

    def run(self, shard: Shard) -> Iterator[Report]:
        """Make the draws of `shard` and of the shards that follow. If the engine fails, commit what was finished."""
        self._patch_id = shard.context.patch_id
        read = partial(_with_priors, self._store, shard)
        self._accept(
            shard,
            (yield from retry_while_unavailable(shard.task_id, read, self._inbox, self._feed_settings.store_seconds)),
        )
        try:
            while self._pending or self._waiting or self._active or self._finished:
                if self._inbox.closed:
                    self._abandon()
                yield from self._feed()
                for done in self._engine.step() if self._active else ():
                    self._finished.count_prompt(done.prompt_tokens, done.cached_tokens)
                    yield from self._settle(self._active.take(done))
                yield from self._report()
                if (blocked := self._finished.blocked) is not None and self._out_of_patience(blocked[0]):
                    self._abandon()
                    yield from [TaskFailed(task_id, blocked[1]) for task_id in self._unsettled]
                    return
        except EngineFault as fault:
            yield from self._commit()
            yield from self._settle(self._active.reject_asks(fault))
            raise
        yield from [TaskEnded(task_id) for task_id in self._unsettled]

    def _out_of_patience(self, since: float) -> bool:
        return self._inbox.closed or time.monotonic() - since > self._feed_settings.store_seconds

    def _accept(self, shard: Shard, items: list[Item]) -> None:
        self._unsettled[shard.task_id] = len(items)
        self._active.prepare(shard.context)
        self._waiting.extend((shard, item) for item in items)
        self._asked_for_more = False

    def _abandon(self) -> None:
        self._pending = None
        self._waiting.clear()
        self._active.abandon()

    # --- feeding ------------------------------------------------------------------------------------------------------

    def _feed(self) -> Iterator[Report]:
        if self._finished.blocked is not None:
            if not self._active:
                self._inbox.closes_within(self._feed_settings.commit_seconds)
            return
        yield from self._settle(self._active.begin(self._waiting))
        if len(self._waiting) < max(1, len(self._active) // 2) and not self._inbox.closed:
            yield from self._take_more()

    def _take_more(self) -> Iterator[Report]:
        if self._pending is None and (shard := self._inbox.take_shard(self._patch_id)) is not None:
            self._pending = _PendingShard(shard, time.monotonic())
            self._unsettled[shard.task_id] = len(shard.items)
        if self._pending is not None:
            yield from self._read_priors(self._pending)
        elif not self._asked_for_more:
            self._asked_for_more = True
            yield WantsMore(next(reversed(self._unsettled)))

    def _read_priors(self, pending: _PendingShard) -> Iterator[Report]:
        """Accept the pending shard, or retry later while the store is unavailable; draws in flight go on meanwhile."""
        if not (self._active or self._waiting or self._finished):
            self._inbox.closes_within(pending.again_at - time.monotonic())
        if time.monotonic() < pending.again_at:
            return
        shard = pending.shard
        try:
            items = _with_priors(self._store, shard)
        except StoreUnavailable as error:
            failure = Failure(FailureKind.STORE, str(error))
            if self._out_of_patience(pending.since):
                self._pending, self._asked_for_more = None, False
                del self._unsettled[shard.task_id]
                yield TaskFailed(shard.task_id, failure)
                return
            pending.pause = next_pause(pending.pause)
            pending.again_at = time.monotonic() + pending.pause
            yield StoreBlocked(shard.task_id, failure)
        else:
            self._pending = None
            self._accept(shard, items)

    # --- settling and committing --------------------------------------------------------------------------------------

    def _settle(self, outcomes: Iterator[FinishedDraw | Rejected]) -> Iterator[Report]:
        """Keep what was finished for the next commit; report what was rejected."""
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                self._unsettled[outcome.task_id] -= len(outcome.numbers)
                yield outcome
            else:
                row = self._row(outcome.shard.context, outcome.item, outcome.draw)
                self._finished.add(outcome.shard.task_id, outcome.item.number, row, outcome.answer_tokens)

    def _report(self) -> Iterator[Report]:
        now = time.monotonic()
        idle = not self._active and not self._waiting
        if self._finished and (idle or now - self._committed_at >= self._feed_settings.commit_seconds):
            self._committed_at = self._beat_at = now
            yield from self._commit()
            yield from self._end_shards()
        elif self._unsettled and now - self._beat_at >= self._feed_settings.heartbeat_seconds:
            self._beat_at = now
            task = next(reversed(self._unsettled))
            yield Heartbeat(task, self._engine.tokens_generated())

    def _commit(self) -> Iterator[Report]:
        for report in self._finished.commit():
            if isinstance(report, Committed):
                self._unsettled[report.task_id] -= len(report.numbers)
            yield report

    def _end_shards(self) -> Iterator[TaskEnded]:
        """Report the shards that have ended while others go on; the last one ends with `run`."""
        over = [task_id for task_id, left in self._unsettled.items() if not left]
        if len(over) == len(self._unsettled):
            over = over[:-1]
        for task_id in over:
            del self._unsettled[task_id]
            yield TaskEnded(task_id)


def _with_priors(store: WorkerStore, shard: Shard) -> list[Item]:
    """The shard's items, with the stored trace of each that continues one."""
    if not any(item.continues for item in shard.items):
        return list(shard.items)
    context = shard.context
    continued = {(item.prompt_id, item.job.seed) for item in shard.items if item.continues}
    rows = store.read("draws", context.context_id, COLUMNS)
    # Convert only the traces that this shard continues: as Python ints they take ten times the memory.
    keys = zip(rows["prompt_id"].to_pylist(), rows["seed"].to_pylist(), strict=True)
    rows = rows.filter(pa.array([key in continued for key in keys], pa.bool_()))
    joined = join_rows(rows.to_pylist(), context.answer_context_id)
    return [
        replace(item, job=replace(item.job, prior=joined[item.prompt_id, item.job.seed].trace))
        if item.continues
        else item
        for item in shard.items
    ]
