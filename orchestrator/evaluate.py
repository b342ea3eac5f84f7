"""`python -m eval MODEL_DIR ...`: evaluate one checkpoint, without a cluster and without MLflow.

It is a sweep of one dense variant, in this process: the same plan, engine, proof, store and metrics, so it resumes, and
a sweep that meets the same model later finds its draws.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from eval.spec import BUDGET_MODES
from orchestrator.cli import COMPLETE, INCOMPLETE, run_command
from orchestrator.console import say
from orchestrator.driver.progress import show_progress
from orchestrator.grid.parse import parse_grid
from orchestrator.grid.source import Source
from orchestrator.plan.prepare import prepare
from orchestrator.results.cells import Cell, Results, read_results
from orchestrator.results.table import final_table
from orchestrator.store.store import Store


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0 complete, 2 bad input, 3 incomplete."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: evaluate(options))


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate, or go on evaluating, `options.model`."""
    # Read when torch is imported: threads that wait by spinning take the core from the pruner and the grader.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from orchestrator.cluster.local_backend import LocalBackend
    from orchestrator.driver.driver import Driver
    from orchestrator.driver.make_core import make_core
    from orchestrator.driver.worker_recipes import WorkerRecipes

    grid = parse_grid(Source("command line", grid_value(options), {}))
    store = Store.open(options.output)
    resolved, plan = prepare(grid, store)
    if plan.nothing_owed:
        say(f"nothing is owed; all {plan.draws_held} draws are in {store.uri}")
    else:
        backend = LocalBackend()
        core = make_core(plan, store, grid.runtime, backend.devices())
        with (
            tempfile.TemporaryDirectory(prefix="prunesweep-") as scratch,
            show_progress(plan.resolved.labels) as progress,
        ):
            recipes = WorkerRecipes(grid.runtime, store, Path(scratch))
            Driver(core, plan, backend, recipes, [progress]).run()
        backend.close()
    results = read_results(store, resolved)
    print(json.dumps(summary(results)) if options.json else final_table(results))
    return COMPLETE if results.complete else INCOMPLETE


def grid_value(options: argparse.Namespace) -> dict[str, Any]:
    """The options as a grid of one variant."""
    budget: dict[str, Any] = {"mode": options.budget, "independent_limits": options.independent_limits}
    if options.budget == "native-strict":
        budget["answer_tokens"] = options.answer_tokens
    model: dict[str, Any] = {"path": options.model} | ({"format": options.format} if options.format else {})
    return {
        "name": "eval",
        "store": options.output,
        "models": [model],
        "variants": [{"method": "dense"}],
        "token_limits": options.limits,
        "benchmarks": options.benchmark,
        "prompt": {"preset": options.prompt},
        "sampling": {"temperature": options.temperature, "top_p": options.top_p, "seeds": options.seeds},
        "budget": budget,
        "runtime": {"engines": 1},
    }


def summary(results: Results) -> dict[str, Any]:
    """What --json prints."""
    return {
        "model": results.resolved.variants[0].model_path,
        "complete": results.complete,
        "cells": [cell_summary(cell) for cell in results.cells],
    }


def cell_summary(cell: Cell) -> dict[str, Any]:
    """One benchmark at one token limit."""
    metrics = cell.metrics
    return {
        "benchmark": cell.benchmark,
        "token_limit": cell.limit,
        "accuracy": metrics.accuracy,
        "interval": [metrics.interval.low, metrics.interval.high] if metrics.interval else None,
        "seed_std": metrics.seed_std,
        "draws": metrics.draws,
        "missing": metrics.missing,
        "ungraded": metrics.ungraded,
        "forced_rate": metrics.forced_rate,
        "cap_hit_rate": metrics.cap_hit_rate,
        "no_answer_rate": metrics.no_answer_rate,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval", description="Evaluate one model at several token limits.")
    parser.add_argument("model", metavar="MODEL_DIR", help="a checkpoint folder, or a cached hub id")
    parser.add_argument("--benchmark", action="append", required=True, help="a built-in name or a file; repeatable")
    parser.add_argument("--limits", type=_numbers, required=True, help="thinking-token limits, such as 512,1024")
    parser.add_argument("--budget", choices=BUDGET_MODES, default="native-strict", help="how a limit is imposed")
    parser.add_argument("--answer-tokens", type=int, default=1024, help="cap on the answer (native-strict)")
    parser.add_argument("--format", help="how the model thinks: qwen3, s1, deepseek-r1, think; detected if left out")
    parser.add_argument("--prompt", default="bare", help="bare or boxed")
    parser.add_argument("--seeds", type=_numbers, default=[0], help="such as 7,11,42")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--independent-limits", action="store_true", help="decode every limit by itself, to check")
    parser.add_argument("--output", required=True, help="folder of the store; a second run resumes there")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
