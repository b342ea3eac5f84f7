"""Tokens computed per token needed, on a real engine whose key-value cache is too small for all draws that wait.

    python -m benchmarks.admission [--draws 200] [--mib 3 4] [--json]          (from the project's folder)

Draws of the tiny reasoner go through the sweep's own evaluation, store and proof. Their traces end where the benchmark
says, so that lengths have the shape that is to be shown: the engine is told to end each at its length, and what it
generated is closed with the end tag. Everything else is vLLM: blocks, preemption, prefix cache.

Needed is what the same draws compute where the cache holds all of them. Each line compares with that: `before`, as many
draws in flight as the engine decodes at once, whatever its cache holds; `after`, draws that begin as it has room.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; spinning threads take each other's cores

import numpy as np

from eval.draws import Ask, Completion
from eval.spec import SamplingSpec
from orchestrator.grid.parse import parse_grid
from orchestrator.grid.source import GridSource
from orchestrator.plan.plan import OwedContext, StoredState, make_plan
from orchestrator.plan.resolve import resolve_grid
from orchestrator.store.store import Store
from pruning.prune import prune
from workers.engines.engine import Capacity, EngineSettings, Finished, Proof
from workers.engines.vllm_engine import VllmEngine
from workers.eval_worker import EvalWorker
from workers.evaluation import FeedSettings
from workers.messages import Rejected, Shard
from workers.worker import Inbox

TINY = Path("examples/tiny/model")
LIMITS = (64, 128, 256)
ANSWER = 16
SEQUENCES = 64
ROOMY_MIB = 128
TARGET = 1.05

Lengths = Callable[[np.random.Generator, int], np.ndarray]
LENGTHS: Mapping[str, Lengths] = {
    "lognormal, median 1/4": lambda chance, n: np.exp(chance.normal(np.log(LIMITS[-1] / 4), 0.8, n)),
    "geometric, mean 1/3": lambda chance, n: chance.geometric(3 / LIMITS[-1], n),
    "uniform": lambda chance, n: chance.integers(1, LIMITS[-1] + 1, n),
    "30 % at the limit, others 1/10": lambda chance, n: np.where(chance.random(n) < 0.3, 1, 0.1) * LIMITS[-1],
    "all at the limit": lambda chance, n: np.full(n, LIMITS[-1]),
    "lognormal, longest first": lambda chance, n: -np.sort(-LENGTHS["lognormal, median 1/4"](chance, n)),
}
"""Lengths of traces by their distribution, in tokens; the limit cuts them."""


@dataclass
class Cost:
    """What an engine computed."""

    tokens: int = 0
    steps: int = 0
    preempted: int = 0


class Paced:
    """A real engine whose traces end at given lengths, and which counts (`workers.engines.engine.Engine`).

    `lengths`: the trace lengths of draws 1, 2, ... in the order in which they begin. `capacity`: what it says that it
    has room for; None for the truth.
    """

    def __init__(self, engine: VllmEngine, lengths: Sequence[int], capacity: Capacity | None) -> None:
        self._engine, self._lengths, self._capacity = engine, lengths, capacity
        self._short: dict[str, int] = {}
        """Trace asks that end before their limit -> the stop token to close them with."""
        self.cost = Cost()
        self._scheduler: Any = engine._engine.engine_core.engine_core.scheduler
        self._schedule = type(self._scheduler).schedule
        self._scheduler.schedule = self._counted

    def _counted(self, *arguments: Any) -> Any:
        made = self._schedule(self._scheduler, *arguments)
        self.cost.tokens += made.total_num_scheduled_tokens
        self.cost.steps += made.total_num_scheduled_tokens > 0
        self.cost.preempted += len(made.preempted_req_ids or ())
        return made

    def capacity(self) -> Capacity:
        return self._capacity or self._engine.capacity()

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec, rank: int = 0) -> None:
        number, _, kind = name.partition("/")
        if kind == "trace":
            length = self._lengths[int(number) - 1]
            if length < ask.max_tokens:
                self._short[name] = ask.stop_token_ids[-1]
            ask = replace(ask, max_tokens=length, min_tokens=length)
        self._engine.submit(name, ask, sampling, rank)

    def step(self) -> Sequence[Finished]:
        return [self._closed(one) if one.name in self._short else one for one in self._engine.step()]

    def _closed(self, one: Finished) -> Finished:
        assert isinstance(one.completion, Completion), one.completion
        ids = (*one.completion.token_ids[:-1], self._short.pop(one.name))
        return replace(one, completion=Completion(ids, "stop"))

    def load(self, base: Path, patch: Path) -> Proof:
        return self._engine.load(base, patch)

    def progress(self) -> Mapping[str, int]:
        return self._engine.progress()

    def cancel(self, names: Sequence[str]) -> None:
        self._engine.cancel(names)

    def tokens_generated(self) -> int:
        return self._engine.tokens_generated()

    def settings(self) -> Mapping[str, str]:
        return self._engine.settings()

    def close(self) -> None:
        """The engine is used again."""


@dataclass(frozen=True)
class Work:
    """The draws to make, with the patch of their variant."""

    owed: OwedContext
    patch: Path

    def run(self, engine: VllmEngine, lengths: Sequence[int], capacity: Capacity | None) -> Cost:
        """Make as many draws as there are lengths, into a store of their own."""
        paced = Paced(engine, lengths, capacity)
        context = self.owed.decoding.context
        with tempfile.TemporaryDirectory() as folder:
            store = Store.open(folder)
            store.publish_patch(self.patch, context.patch_id)
            worker = EvalWorker("engine", paced, store, TINY, Path(folder), FeedSettings())
            paced.cost = Cost()
            items = self.owed.items(self.owed.numbers[: len(lengths)])
            reports = list(worker.run(Shard("draws", context, items), Inbox()))
            assert not [report for report in reports if isinstance(report, Rejected)]
            assert len(store.stored_draws(context.context_id)) == len(lengths)
        return paced.cost


def work(folder: Path) -> Work:
    """The tiny reasoner's draws on a shipped benchmark, with several seeds, and its dense patch."""
    value = {
        "name": "admission", "store": str(folder), "models": [str(TINY)], "variants": [{"method": "dense"}],
        "token_limits": list(LIMITS), "benchmarks": ["examples/tiny/chain-mixed.jsonl"],
        "sampling": {"temperature": 1.0, "seeds": list(range(8))},
        "budget": {"mode": "native-strict", "answer_tokens": ANSWER},
    }  # fmt: skip
    plan = make_plan(resolve_grid(parse_grid(GridSource("admission", value, {}))), StoredState())
    (variant,) = plan.resolved.variants
    patch = folder / "patch"
    prune(TINY, variant.spec, patch, payload=variant.patch_payload)
    (owed,) = plan.contexts
    return Work(owed, patch)


def measure(work: Work, draws: int, mib: int) -> dict[str, dict[str, Cost]]:
    """Lengths -> way -> its cost, with a cache of `mib` MiB."""
    engine = VllmEngine(TINY, None, EngineSettings("bfloat16", 512, max_sequences=SEQUENCES, cpu_cache_mib=mib))
    endless = replace(engine.capacity(), cache_tokens=10**9)
    costs: dict[str, dict[str, Cost]] = {}
    for name, shape in LENGTHS.items():
        lengths = np.clip(shape(np.random.default_rng(0), draws), 1, LIMITS[-1]).astype(int).tolist()
        costs[name] = {way: work.run(engine, lengths, told) for way, told in (("before", endless), ("after", None))}
    engine.close()
    return costs


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--mib", type=int, nargs="+", default=[3, 4], help="sizes of the cache; 1 MiB is 1,024 tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = work(Path(folder))
        needed = measure(made, arguments.draws, ROOMY_MIB)
        for mib in arguments.mib:
            for name, ways in measure(made, arguments.draws, mib).items():
                row: dict[str, Any] = {"mib": mib, "lengths": name}
                for way, cost in ways.items():
                    row[way] = cost.tokens / needed[name]["before"].tokens
                    row[f"{way}_preempted"], row[f"{way}_steps"] = cost.preempted, cost.steps
                rows.append(row)
    if arguments.json:
        print(json.dumps({"draws": arguments.draws, "target": TARGET, "rows": rows}))
        return
    print("| cache | lengths of traces | computed/needed: before | after | preempted: before | after | steps: ratio |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['mib']} MiB | {row['lengths']} | {row['before']:.3f} | {row['after']:.3f} "
            f"| {row['before_preempted']} | {row['after_preempted']} | {row['after_steps'] / row['before_steps']:.2f} |"
        )
    print(f"target: after <= {TARGET}; {arguments.draws} draws")


if __name__ == "__main__":
    main()
