"""Shared against independent decoding: generated tokens and time of a grid's draws, in one run of one real engine.

    python -m benchmarks.shared_decode [GRID.yaml] [--json]          (from the project's folder)

Independent decoding makes a trace per token limit, as the papers' harnesses do; shared decoding makes one per draw and
cuts it. Both go through the sweep's own worker, store and proved swaps. Counted: every generated token, and the seconds
inside the engine (its start, the swaps, pruning and the store are left out; they are the same for both). The order of
the two alternates from variant to variant, and the swap before each empties the prefix cache: neither warms the other.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; spinning threads take each other's cores

from eval.draws import Ask, Completion, answer_for
from eval.spec import SamplingSpec
from orchestrator.grid.parse import Grid, read_grid
from orchestrator.plan.plan import Plan, StoredState, make_plan
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.resolved_grid import ResolvedVariant
from orchestrator.store.store import Store
from pruning.prune import prune
from workers.engines.engine import Capacity, Engine, EngineSettings, Finished, Proof
from workers.eval_worker import EvalWorker
from workers.evaluation import FeedSettings
from workers.messages import Context, Item, Shard
from workers.recipes import start_vllm
from workers.rows.draw_rows import COLUMNS, join_rows
from workers.worker import Inbox

WARM_UP = 16
"""Draws that are made before anything is counted."""
TARGETS = {"tokens": 2.0, "seconds": 1.5}

AnswerName = tuple[str, int, int]
"""(prompt id, seed, limit)."""


class Meter:
    """An engine that counts the tokens it generates and the seconds spent in it (`workers.engines.engine.Engine`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.tokens, self.seconds = 0, 0.0

    def load(self, base: Path, patch: Path) -> Proof:
        return self._engine.load(base, patch)

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec, rank: int = 0) -> None:
        began = time.perf_counter()
        self._engine.submit(name, ask, sampling, rank)
        self.seconds += time.perf_counter() - began

    def step(self) -> Sequence[Finished]:
        began = time.perf_counter()
        finished = self._engine.step()
        self.seconds += time.perf_counter() - began
        self.tokens += sum(len(one.completion.token_ids) for one in finished if isinstance(one.completion, Completion))
        return finished

    def cancel(self, names: Sequence[str]) -> None:
        self._engine.cancel(names)

    def capacity(self) -> Capacity:
        return self._engine.capacity()

    def progress(self) -> Mapping[str, int]:
        return self._engine.progress()

    def tokens_generated(self) -> int:
        return self._engine.tokens_generated()

    def settings(self) -> Mapping[str, str]:
        return self._engine.settings()

    def close(self) -> None:
        """The engine is used again; `main` closes it."""


@dataclass(frozen=True)
class Cost:
    """What one way to decode took for one variant."""

    tokens: int
    seconds: float
    answers: Mapping[AnswerName, tuple[int, ...]]
    """The token ids of each."""


def decode(engine: Engine, plan: Plan, variant: ResolvedVariant, patches: Store, most: int | None = None) -> Cost:
    """Make the draws of one variant (the first `most` of each context) into a store of their own."""
    meter = Meter(engine)
    answers: dict[AnswerName, tuple[int, ...]] = {}
    runtime = plan.resolved.grid.runtime
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        store.publish_patch(patches.fetch_patch(variant.patch_id, Path(folder)), variant.patch_id)
        feed = FeedSettings(runtime.in_flight, runtime.commit_seconds)
        worker = EvalWorker("engine", meter, store, Path(variant.model_path), Path(folder), feed)
        for owed in plan.contexts:
            if owed.variant.patch_id != variant.patch_id:
                continue
            context, items = owed.decoding.context, owed.items(owed.numbers[:most])
            list(worker.run(Shard(context.context_id, context, items), Inbox()))
            answers |= served(store, context, items)
    return Cost(meter.tokens, meter.seconds, answers)


def served(store: Store, context: Context, items: Sequence[Item]) -> dict[AnswerName, tuple[int, ...]]:
    """The answer that serves each limit of each draw."""
    draws = join_rows(store.read("draws", context.context_id, COLUMNS).to_pylist(), context.answer_context_id)
    found = {}
    for item in items:
        draw = draws[(item.prompt_id, item.job.seed)]
        for limit in item.job.limits:
            answer = answer_for(limit, len(draw.trace.token_ids), draw.trace.ended, draw.answers)
            assert answer is not None, f"{item.job.problem_id} has no answer at limit {limit}"
            found[(item.prompt_id, item.job.seed, limit)] = tuple(answer["token_ids"])
    return found


def owed_by(grid: Grid, apart: bool) -> Plan:
    """What `grid` owes to an empty store when its limits are decoded together, or apart."""
    return make_plan(resolve_grid(replace(grid, budget=replace(grid.budget, independent_limits=apart))), StoredState())


def compare(grid: Grid) -> dict[str, tuple[Cost, Cost]]:
    """Variant -> (shared, independent)."""
    plans = {apart: owed_by(grid, apart) for apart in (False, True)}
    variants = plans[False].resolved.variants
    shapes = {owed.decoding.context.shape for owed in plans[False].contexts}
    if len(shapes) > 1:
        raise SystemExit(f"{grid.source.name}: its variants have {len(shapes)} shapes; this runs one engine of one")
    context = plans[False].contexts[0].decoding.context
    runtime = grid.runtime
    with tempfile.TemporaryDirectory() as folder:
        patches = Store.open(folder)
        for number, variant in enumerate(variants):
            made = Path(folder, f"made-{number}")
            prune(Path(variant.model_path), variant.spec, made, payload=variant.patch_payload)
            patches.publish_patch(made, variant.patch_id)
        settings = EngineSettings(
            context.shape.dtype,
            context.context_length,
            max_sequences=runtime.max_sequences,
            cpu_cache_mib=runtime.cpu_cache_mib,
            gpu_memory_utilization=runtime.gpu_memory_utilization,
        )
        engine = start_vllm(Path(variants[0].model_path), context.shape.layers, settings)
        for plan in plans.values():
            decode(engine, plan, variants[0], patches, most=WARM_UP)
        costs = {}
        for number, variant in enumerate(variants):
            order = (False, True) if number % 2 == 0 else (True, False)
            cost = {apart: decode(engine, plans[apart], variant, patches) for apart in order}
            costs[variant.label] = (cost[False], cost[True])
        engine.close()
    return costs


def row(label: str, pairs: Sequence[tuple[Cost, Cost]]) -> dict[str, str | int | float]:
    """One line of the table: the sums over `pairs` of (shared, independent)."""
    tokens = [sum(pair[way].tokens for pair in pairs) for way in (0, 1)]
    seconds = [sum(pair[way].seconds for pair in pairs) for way in (0, 1)]
    return {
        "variant": label,
        "tokens_shared": tokens[0],
        "tokens_independent": tokens[1],
        "tokens_ratio": tokens[1] / tokens[0],
        "seconds_shared": seconds[0],
        "seconds_independent": seconds[1],
        "seconds_ratio": seconds[1] / seconds[0],
        "answers": sum(len(shared.answers) for shared, _ in pairs),
        "answers_differ": sum(
            ids != independent.answers[key] for shared, independent in pairs for key, ids in shared.answers.items()
        ),
    }


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", nargs="?", default="examples/tiny/grid.yaml", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    costs = compare(read_grid(arguments.grid))
    rows = [row(label, [pair]) for label, pair in costs.items()] + [row("together", list(costs.values()))]
    if arguments.json:
        print(json.dumps({"cpus": os.cpu_count(), "targets": TARGETS, "rows": rows}))
        return
    print("| variant | tokens: shared | independent | ratio | seconds: shared | independent | ratio | answers differ |")
    print("|---|---|---|---|---|---|---|---|")
    for line in rows:
        print(
            f"| {line['variant']} | {line['tokens_shared']:,} | {line['tokens_independent']:,} "
            f"| {line['tokens_ratio']:.2f} | {line['seconds_shared']:.1f} | {line['seconds_independent']:.1f} "
            f"| {line['seconds_ratio']:.2f} | {line['answers_differ']} of {line['answers']} |"
        )
    print(f"targets: tokens {TARGETS['tokens']:.1f}, seconds {TARGETS['seconds']:.1f}; {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
