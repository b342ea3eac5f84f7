"""Evaluates shards: swaps the variant in, feeds draws continuously, commits the finished ones every few seconds.

A bounded number of draws is in flight and there is no batch barrier: each draw's next ask is sent the moment its last
completion arrives, so forced answers run while their trace's blocks are still in the prefix cache. A draw is committed
with all its answers or not at all.
"""

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.budget import Rules, State, Step, advance, make_rules, start
from eval.draws import Completion, Draw
from eval.prompts import ChatTokenizer
from workers.engine import Engine, EngineFault, Finished, Proof, VariantFault
from workers.messages import (
    Committed,
    Context,
    DrawKey,
    DrawRow,
    Facts,
    Failure,
    Heartbeat,
    Item,
    Rejected,
    Report,
    Shard,
    Swapped,
    Task,
)
from workers.worker import Sink, TaskFault, WorkerFault

EngineFactory = Callable[[Path, Path | None], Engine]
"""(base checkpoint, a patch that shows the shape or None for the base's own) -> an engine."""


@dataclass(frozen=True)
class Pace:
    """How draws are fed and committed; changes speed and what a crash can cost, never an answer."""

    in_flight: int = 128
    commit_seconds: float = 5.0
    heartbeat_seconds: float = 2.0


class EvalWorker:
    """One engine and the draws it is making."""

    def __init__(
        self,
        name: str,
        engine: EngineFactory,
        store: Sink,
        base: Path,
        patch_id: str | None,
        cache: Path,
        pace: Pace,
        log: str = "",
    ) -> None:
        """Start an engine of the shape of `base`, or of `base` + patch. Raises what the engine raises."""
        self._name, self._store, self._base, self._cache, self._pace = name, store, base, cache, pace
        self._log = log
        self._engine = engine(base, store.fetch_patch(patch_id, cache) if patch_id is not None else None)
        self._codec = ChatTokenizer.load(base)
        self._holds: tuple[str, Proof] | None = None
        self._stop = threading.Event()
        self._settings = json.dumps(dict(sorted(self._engine.settings().items())))

    def facts(self) -> Facts:
        return Facts(self._name, socket.gethostname(), os.getpid(), self._log, dict(self._engine.settings()))

    def ask_to_stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._engine.close()

    def run(self, task: Task) -> Iterator[Report]:
        """Evaluate a shard. Reports `Swapped`, `Heartbeat`, `Rejected` and `Committed`."""
        assert isinstance(task, Shard)
        try:
            yield from self._swap(task)
            yield from _ShardRun(self, task).reports()
        except EngineFault as fault:
            raise WorkerFault(self._with_log(fault.failure)) from fault
        except VariantFault as fault:
            self._holds = None
            raise TaskFault(self._with_log(fault.failure)) from fault

    def _swap(self, shard: Shard) -> Iterator[Report]:
        patch_id = shard.context.patch_id
        if self._holds is not None and self._holds[0] == patch_id:
            return
        began = time.monotonic()
        self._holds = None
        proof = self._engine.load(self._base, self._store.fetch_patch(patch_id, self._cache))
        self._holds = (patch_id, proof)
        yield Swapped(shard.task_id, patch_id, time.monotonic() - began, proof.canary_error)

    def _with_log(self, failure: Failure) -> Failure:
        return Failure(failure.kind, failure.cause, failure.log or self._log)

    # What a shard's run needs of its worker.
    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def pace(self) -> Pace:
        return self._pace

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def rules(self, context: Context) -> Rules:
        return make_rules(context.budget, self._codec, self._codec.eos_ids, context.context_length, context.format)

    def commit(self, rows: list[DrawRow]) -> None:
        self._store.commit_draws(rows)

    def row(self, shard: Shard, item: Item, draw: Draw) -> DrawRow:
        assert self._holds is not None
        return DrawRow(
            context_id=shard.context.context_id,
            answer_context_id=shard.context.answer_context_id,
            prompt_id=item.prompt_id,
            seed=item.job.seed,
            benchmark=item.benchmark,
            problem_id=draw.problem_id,
            prompt_ids=item.job.prompt_ids,
            start=draw.start,
            limit=draw.limit,
            trace_ids=draw.trace_ids,
            trace_text=self._codec.decode(draw.trace_ids),
            ended=draw.ended,
            derived_seed=draw.derived_seed,
            waits=draw.waits,
            answers=draw.answers,
            weights_digest=self._holds[1].weights_digest,
            engine=self._settings,
            worker=self._name,
            created_at=time.time(),
        )


class _ShardRun:
    """The draws of one shard on their way through the engine."""

    def __init__(self, worker: EvalWorker, shard: Shard) -> None:
        self._worker, self._shard = worker, shard
        self._rules = worker.rules(shard.context)
        # Longest expected first: what starts last should not be what ends last.
        self._waiting = deque(sorted(shard.items, key=lambda item: -max(item.job.limits)))
        self._active: dict[int, tuple[Item, State]] = {}
        self._open: dict[int, set[str]] = {}
        self._rows: list[DrawRow] = []
        self._tokens = self._prompt_tokens = self._cached_tokens = 0
        self._started = 0

    def reports(self) -> Iterator[Report]:
        """Drive the shard to its end. When the engine fails, the draws that were finished are committed first."""
        try:
            yield from self._drive()
        except EngineFault:
            if self._rows:
                yield self._commit()
            raise

    def _drive(self) -> Iterator[Report]:
        pace, last_commit, last_beat = self._worker.pace, time.monotonic(), time.monotonic()
        while (self._waiting and not self._worker.stopping) or self._active:
            while self._waiting and len(self._active) < pace.in_flight and not self._worker.stopping:
                yield from self._begin(self._waiting.popleft())
            if self._worker.stopping:
                self._abandon()
            for finished in self._worker.engine.step() if self._active else ():
                yield from self._take(finished)
            now = time.monotonic()
            if now - last_commit >= pace.commit_seconds and self._rows:
                yield self._commit()
                last_commit = last_beat = now
            elif now - last_beat >= pace.heartbeat_seconds:
                yield Heartbeat(self._shard.task_id, self._tokens)
                last_beat = now
        if self._rows:
            yield self._commit()

    def _begin(self, item: Item) -> Iterator[Report]:
        number = self._started = self._started + 1
        try:
            yield from self._follow(number, item, start(self._rules, item.job))
        except ValueError as error:
            yield self._reject(number, item, Failure("bad-input", str(error)))

    def _take(self, finished: Finished) -> Iterator[Report]:
        number, _, name = finished.name.partition("/")
        if int(number) not in self._active:
            return
        item, state = self._active[int(number)]
        self._open[int(number)].discard(finished.name)
        self._prompt_tokens += finished.prompt_tokens
        self._cached_tokens += finished.cached_tokens
        if not isinstance(finished.completion, Completion):
            yield self._reject(int(number), item, finished.completion)
            return
        self._tokens += len(finished.completion.token_ids)
        try:
            step = advance(self._rules, state, name, finished.completion)
            yield from self._follow(int(number), item, step)
        except ValueError as error:
            yield self._reject(int(number), item, Failure("engine-error", str(error)))

    def _follow(self, number: int, item: Item, step: Step) -> Iterator[Report]:
        if step.draw is not None:
            self._active.pop(number, None)
            self._open.pop(number, None)
            self._rows.append(self._worker.row(self._shard, item, step.draw))
            return
        self._active[number] = (item, step.state)
        for ask in step.asks:
            self._worker.engine.submit(f"{number}/{ask.name}", ask, self._shard.context.sampling)
            self._open.setdefault(number, set()).add(f"{number}/{ask.name}")
        yield from ()

    def _reject(self, number: int, item: Item, failure: Failure) -> Rejected:
        self._active.pop(number, None)
        self._worker.engine.cancel(sorted(self._open.pop(number, set())))
        key: DrawKey = (self._shard.context.context_id, item.prompt_id, item.job.seed)
        return Rejected(self._shard.task_id, (key,), failure)

    def _abandon(self) -> None:
        self._worker.engine.cancel(sorted(name for names in self._open.values() for name in names))
        self._active.clear()
        self._open.clear()

    def _commit(self) -> Committed:
        self._worker.commit(self._rows)
        rows, self._rows = self._rows, []
        report = Committed(
            self._shard.task_id,
            tuple(row.key for row in rows),
            trace_tokens=sum(len(row.trace_ids) for row in rows),
            answer_tokens=sum(len(answer.token_ids) for row in rows for answer in row.answers),
            cached_tokens=self._cached_tokens,
            prompt_tokens=self._prompt_tokens,
        )
        self._prompt_tokens = self._cached_tokens = 0
        return report
