"""One engine that evaluates shards: loads a variant's weights, and has `Evaluation` make and commit its draws."""

import json
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eval.draws import Draw
from eval.loops import LoopFinder
from eval.prompts import ChatTokenizer
from workers.engines.engine import Engine, EngineFault, Proof, VariantFault
from workers.evaluation import Evaluation, FeedSettings
from workers.failure import Failure, FailureKind
from workers.messages import Context, Item, Report, Shard, Task, TaskFailed, WeightsLoaded, WorkerInfo
from workers.rows.tables import DrawRow
from workers.store import StoreUnavailable, WorkerStore
from workers.store_retry import retry_while_unavailable
from workers.worker import Inbox, WorkerFault


class EvalWorker:
    """An engine, the variant that it holds, and the store."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        store: WorkerStore,
        base: Path,
        cache: Path,
        feed: FeedSettings,
        log: str = "",
    ) -> None:
        """Evaluate on `engine`, which was started for variants of `base`."""
        self._name, self._store, self._base, self._feed = name, store, base, feed
        self._cache = cache / name  # its own: fetching a patch into a cache removes the previous one
        self._log = log
        self._engine = engine
        self._codec = ChatTokenizer.load(base)
        self._loops = LoopFinder(lambda token: self._codec.decode((token,)))
        self._loaded: tuple[str, Proof] | None = None
        self._settings = json.dumps(dict(sorted(self._engine.settings().items())))

    def facts(self) -> WorkerInfo:
        return WorkerInfo(self._name, socket.gethostname(), os.getpid(), self._log, dict(self._engine.settings()))

    def close(self) -> None:
        self._engine.close()

    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        """Evaluate a shard, and every shard of the same variant that arrives while it runs.

        Reports `WeightsLoaded` and what `Evaluation` reports. Raises `WorkerFault` if the engine is at fault.
        """
        assert isinstance(task, Shard)
        try:
            yield from self._swap(task, inbox)
            yield from Evaluation(self._engine, self._store, self._codec, self._feed, inbox, self._row).run(task)
        except EngineFault as fault:
            raise WorkerFault(self._with_log(fault.failure)) from fault
        except VariantFault as fault:
            self._loaded = None
            yield TaskFailed(task.task_id, self._with_log(fault.failure))
        except StoreUnavailable as error:  # before any draw was begun: reading the patch or the stored traces
            yield TaskFailed(task.task_id, Failure(FailureKind.STORE, str(error), self._log))

    def _swap(self, shard: Shard, inbox: Inbox) -> Iterator[Report]:
        patch_id = shard.context.patch_id
        if self._loaded is not None and self._loaded[0] == patch_id:
            return
        began = time.monotonic()
        load = partial(self._load, patch_id)
        proof = yield from retry_while_unavailable(shard.task_id, load, inbox, self._feed.store_seconds)
        self._loaded = (patch_id, proof)
        yield WeightsLoaded(shard.task_id, patch_id, time.monotonic() - began, proof.canary_error)

    def _load(self, patch_id: str) -> Proof:
        folder = self._store.fetch_patch(patch_id, self._cache)
        self._loaded = None
        return self._engine.load(self._base, folder)

    def _with_log(self, failure: Failure) -> Failure:
        return Failure(failure.kind, failure.cause, failure.log or self._log)

    def _row(self, context: Context, item: Item, draw: Draw) -> DrawRow:
        assert self._loaded is not None
        stored = item.job.prior.token_ids if item.job.prior is not None else ()
        return DrawRow(
            context_id=context.context_id,
            answer_context_id=context.answer_context_id,
            prompt_id=item.prompt_id,
            seed=item.job.seed,
            benchmark=item.benchmark,
            problem_id=draw.problem_id,
            prompt_ids=item.job.prompt_ids,
            start=draw.start,
            limit=draw.limit,
            trace_ids=draw.trace_ids,
            loop_at=self._loops.find(stored + draw.trace_ids),
            trace_text=self._codec.decode(draw.trace_ids),
            ended=draw.ended,
            derived_seed=draw.derived_seed,
            waits=draw.waits,
            answers=draw.answers,
            weights_digest=self._loaded[1].weights_digest,
            engine=self._settings,
            worker=self._name,
            created_at=time.time(),
        )
