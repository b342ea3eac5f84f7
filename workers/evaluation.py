"""Draws on their way through an engine: fed continuously, committed every few seconds, shard after shard.

A bounded number of draws is in flight, without batch barriers. Each draw's next ask is sent as soon as its last
completion arrives, so forced answers run while their trace's blocks are still in the prefix cache. When few draws are
left to begin, the driver is asked for more of the same variant (`WantsMore`), so that the engine never idles between
shards. A draw is committed with all its answers or not at all.

While the store cannot be written, finished draws are kept, no draw is begun, and the commit is retried for a while.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from eval.budget import State, Step, advance, start
from eval.draws import Completion, Draw
from eval.modes import make_rules
from eval.prompts import ChatTokenizer
from eval.rules import Rules
from workers.engines.engine import Engine, EngineFault, Finished
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

    in_flight: int = 128
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


@dataclass
class _ActiveDraw:
    """A draw in flight."""

    shard: Shard
    item: Item
    state: State
    asks: set[str] = field(default_factory=set)


class Evaluation:
    """One variant's draws. Construct it when the engine holds the variant's weights, and call `run` once."""

    def __init__(
        self, engine: Engine, store: WorkerStore, codec: ChatTokenizer, feed: FeedSettings, inbox: Inbox, row: MakeRow
    ) -> None:
        self._engine, self._store, self._codec, self._feed_settings, self._inbox = engine, store, codec, feed, inbox
        self._row = row
        self._rules: dict[str, Rules] = {}
        self._patch_id = ""
        self._pending: _PendingShard | None = None
        self._waiting: deque[tuple[Shard, Item]] = deque()
        self._active: dict[int, _ActiveDraw] = {}
        self._rows: list[tuple[Shard, Item, DrawRow, int]] = []
        """Finished draws that are not committed yet, each with the length of its whole trace."""
        self._unsettled: dict[str, int] = {}
        """Task id -> how many of its draws are neither committed nor rejected."""
        self._asked_for_more = False
        """Whether `WantsMore` was reported since the last shard came."""
        self._blocked: tuple[float, Failure] | None = None
        """Since when commits have failed, and why."""
        self._prompt_tokens = self._cached_tokens = self._begun = 0
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
            while self._pending or self._waiting or self._active or self._rows:
                if self._inbox.closed:
                    self._abandon()
                yield from self._feed()
                for finished in self._engine.step() if self._active else ():
                    yield from self._take(finished)
                yield from self._report()
                if self._blocked is not None and self._out_of_patience(self._blocked[0]):
                    self._abandon()
                    yield from [TaskFailed(task_id, self._blocked[1]) for task_id in self._unsettled]
                    return
        except EngineFault as fault:
            yield from self._commit()
            yield from self._reject_asks(fault)
            raise
        yield from [TaskEnded(task_id) for task_id in self._unsettled]

    def _out_of_patience(self, since: float) -> bool:
        return self._inbox.closed or time.monotonic() - since > self._feed_settings.store_seconds

    def _accept(self, shard: Shard, items: list[Item]) -> None:
        self._unsettled[shard.task_id] = len(items)
        if shard.context.context_id not in self._rules:
            context = shard.context
            self._rules[context.context_id] = make_rules(
                context.budget, self._codec, self._codec.eos_ids, context.context_length, context.format
            )
        self._waiting.extend((shard, item) for item in items)
        self._asked_for_more = False

    # --- feeding ------------------------------------------------------------------------------------------------------

    def _feed(self) -> Iterator[Report]:
        if self._blocked is not None:
            if not self._active:
                self._inbox.closes_within(self._feed_settings.commit_seconds)
            return
        while self._waiting and len(self._active) < self._feed_settings.in_flight:
            yield from self._begin(*self._waiting.popleft())
        if len(self._waiting) < self._feed_settings.in_flight // 2 and not self._inbox.closed:
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
        if not (self._active or self._waiting or self._rows):
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

    def _begin(self, shard: Shard, item: Item) -> Iterator[Report]:
        number = self._begun = self._begun + 1
        try:
            step = start(self._rules[shard.context.context_id], item.job)
            self._active[number] = _ActiveDraw(shard, item, step.state)
            self._follow(number, step)
        except ValueError as error:
            yield self._reject(number, shard, item, Failure(FailureKind.BAD_INPUT, str(error)))

    def _take(self, finished: Finished) -> Iterator[Report]:
        number, _, name = finished.name.partition("/")
        draw = self._active.get(int(number))
        if draw is None:
            return
        draw.asks.discard(finished.name)
        self._prompt_tokens += finished.prompt_tokens
        self._cached_tokens += finished.cached_tokens
        if not isinstance(finished.completion, Completion):
            yield self._reject(int(number), draw.shard, draw.item, finished.completion)
            return
        try:
            rules = self._rules[draw.shard.context.context_id]
            self._follow(int(number), advance(rules, draw.state, name, finished.completion))
        except ValueError as error:
            yield self._reject(int(number), draw.shard, draw.item, Failure(FailureKind.ENGINE_ERROR, str(error)))

    def _follow(self, number: int, step: Step) -> None:
        draw = self._active[number]
        if step.draw is not None:
            del self._active[number]
            row = self._row(draw.shard.context, draw.item, step.draw)
            self._rows.append((draw.shard, draw.item, row, step.draw.start + len(step.draw.trace_ids)))
            return
        draw.state = step.state
        for ask in step.asks:
            self._engine.submit(f"{number}/{ask.name}", ask, draw.shard.context.sampling)
            draw.asks.add(f"{number}/{ask.name}")

    def _reject(self, number: int, shard: Shard, item: Item, failure: Failure) -> Rejected:
        draw = self._active.pop(number, None)
        self._engine.cancel(sorted(draw.asks) if draw else [])
        self._unsettled[shard.task_id] -= 1
        return Rejected(shard.task_id, (item.number,), failure)

    def _reject_asks(self, fault: EngineFault) -> Iterator[Rejected]:
        """Reject the draws that brought the engine down, so that they alone are given up."""
        for number in sorted({int(name.partition("/")[0]) for name in fault.asks}):
            if (draw := self._active.pop(number, None)) is not None:
                yield Rejected(draw.shard.task_id, (draw.item.number,), fault.failure)

    def _abandon(self) -> None:
        self._pending = None
        self._waiting.clear()
        self._engine.cancel(sorted(name for draw in self._active.values() for name in draw.asks))
        self._active.clear()

    # --- committing ---------------------------------------------------------------------------------------------------

    def _report(self) -> Iterator[Report]:
        now = time.monotonic()
        idle = not self._active and not self._waiting
        if self._rows and (idle or now - self._committed_at >= self._feed_settings.commit_seconds):
            self._committed_at = self._beat_at = now
            yield from self._commit()
            yield from self._end_shards()
        elif self._unsettled and now - self._beat_at >= self._feed_settings.heartbeat_seconds:
            self._beat_at = now
            task = next(reversed(self._unsettled))
            yield Heartbeat(task, self._engine.tokens_generated())

    def _commit(self) -> Iterator[Report]:
        """Commit finished draws. If the store is unavailable, report `StoreBlocked` and keep them."""
        by_context: dict[str, list[tuple[Shard, Item, DrawRow, int]]] = {}
        for entry in self._rows:
            by_context.setdefault(entry[2].context_id, []).append(entry)
        for entries in by_context.values():
            try:
                self._store.commit_draws([row for _, _, row, _ in entries])
            except StoreUnavailable as error:
                since = self._blocked[0] if self._blocked is not None else time.monotonic()
                self._blocked = (since, Failure(FailureKind.STORE, str(error)))
                yield StoreBlocked(entries[0][0].task_id, self._blocked[1])
                return
            self._blocked = None
            done = {id(entry) for entry in entries}
            self._rows = [entry for entry in self._rows if id(entry) not in done]
            yield from self._committed(entries)

    def _committed(self, entries: list[tuple[Shard, Item, DrawRow, int]]) -> Iterator[Committed]:
        by_task: dict[str, list[tuple[Shard, Item, DrawRow, int]]] = {}
        for entry in entries:
            by_task.setdefault(entry[0].task_id, []).append(entry)
        for task_id, group in by_task.items():
            self._unsettled[task_id] -= len(group)
            yield Committed(
                task_id,
                tuple(item.number for _, item, _, _ in group),
                tuple(length for *_, length in group),
                trace_tokens=sum(len(row.trace_ids) for _, _, row, _ in group),
                answer_tokens=sum(self._answer_tokens(row) for _, _, row, _ in group),
                cached_tokens=self._cached_tokens,
                prompt_tokens=self._prompt_tokens,
            )
            self._prompt_tokens = self._cached_tokens = 0

    def _answer_tokens(self, row: DrawRow) -> int:
        """How many tokens were generated for the row's answers: none where the answers are read off the trace."""
        if not self._rules[row.context_id].mode.answer_phase:
            return 0
        return sum(len(answer.token_ids) for answer in row.answers)

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
