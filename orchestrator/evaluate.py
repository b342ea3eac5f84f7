"""`python -m eval MODEL_DIR ...`: evaluate one checkpoint, without a cluster and without MLflow.

It is a sweep of one dense variant in this process, with the same plan, engine, weight proof, store and metrics. So it
resumes, and a sweep of the same model into the same store finds its draws.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from eval.formats import FORMATS
from eval.modes import MODES
from orchestrator.cli import COMPLETE, INCOMPLETE, run_command
from orchestrator.console import say
from orchestrator.driver.progress import show_progress
from orchestrator.grid.parse import parse_grid
from orchestrator.grid.source import GridSource
from orchestrator.plan.prepare import prepare
from orchestrator.results.cells import Results, read_results
from orchestrator.results.numbers import cell_summary
from orchestrator.results.table import final_table
from orchestrator.store.store import Store


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0 complete, 2 bad input, 3 incomplete."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: evaluate(options))


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate `options.model`, or resume. Returns the exit status. Raises InputError for options that make no grid."""
    # torch reads this when imported. Its threads would spin while they wait, and take cores from pruner and grader.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from orchestrator.cluster.local_backend import LocalBackend
    from orchestrator.driver.driver import Driver
    from orchestrator.driver.event_log import event_log
    from orchestrator.driver.make_core import make_core
    from orchestrator.driver.worker_recipes import WorkerRecipes

    grid = parse_grid(GridSource("command line", grid_value(options), {}))
    store = Store.open(options.output)
    resolved, plan = prepare(grid, store)
    if plan.nothing_owed:
        say(f"nothing is owed; all {plan.draws_stored} draws are in {store.uri}")
    else:
        backend = LocalBackend()
        core = make_core(plan, store, grid.runtime, backend.devices())
        with (
            event_log(store, grid.name, grid.runtime.event_log, say) as log,
            tempfile.TemporaryDirectory(prefix="prunesweep-") as scratch,
            show_progress(plan.resolved.labels) as progress,
        ):
            log.begin(core)
            recipes = WorkerRecipes(grid.runtime, store, Path(scratch))
            Driver(core, plan, backend, recipes, [log, progress]).run()
        backend.close()
    results = read_results(store, resolved)
    print(json.dumps(summary(results)) if options.json else final_table(results))
    return COMPLETE if results.complete else INCOMPLETE


def grid_value(options: argparse.Namespace) -> dict[str, Any]:
    """The options as the value of a grid with one variant."""
    budget: dict[str, Any] = {"mode": options.budget, "independent_limits": options.independent_limits}
    if MODES[options.budget].needs_answer_tokens:
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
    """The object that `--json` prints."""
    return {
        "model": results.resolved.variants[0].model_path,
        "complete": results.complete,
        "cells": [cell_summary(results, cell) for cell in results.cells],
    }


def _parser() -> argparse.ArgumentParser:
    capped = ", ".join(mode.name for mode in MODES.values() if mode.needs_answer_tokens)
    parser = argparse.ArgumentParser(prog="python -m eval", description="Evaluate one model at several token limits.")
    parser.add_argument("model", metavar="MODEL_DIR", help="a checkpoint folder, or a cached hub id")
    parser.add_argument("--benchmark", action="append", required=True, help="a built-in name or a file; repeatable")
    parser.add_argument("--limits", type=_numbers, required=True, help="thinking-token limits, such as 512,1024")
    parser.add_argument("--budget", choices=list(MODES), default=next(iter(MODES)), help="how a limit is imposed")
    parser.add_argument("--answer-tokens", type=int, default=1024, help=f"cap on the answer ({capped})")
    parser.add_argument("--format", help=f"how the model thinks: {', '.join(FORMATS)}; detected if left out")
    parser.add_argument("--prompt", default="bare", help="bare or boxed")
    parser.add_argument("--seeds", type=_numbers, default=[0], help="comma-separated, such as 7,11,42")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--independent-limits", action="store_true", help="decode every limit separately, as a check")
    parser.add_argument("--output", required=True, help="folder of the store; a second run resumes there")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
