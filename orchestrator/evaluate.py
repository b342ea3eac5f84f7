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

from orchestrator.cli import COMPLETE, INCOMPLETE, run_command
from orchestrator.console import say
from orchestrator.driver.progress import show_progress
from orchestrator.grid.options import eval_parser, in_options, options_source
from orchestrator.grid.parse import parse_grid
from orchestrator.plan.prepare import prepare
from orchestrator.results.cells import Results, read_results
from orchestrator.results.numbers import cell_summary
from orchestrator.results.table import final_table
from orchestrator.store.store import Store


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0 complete, 2 bad input, 3 incomplete."""
    options = eval_parser().parse_args(arguments)
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

    with in_options():
        grid = parse_grid(options_source(options))
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


def summary(results: Results) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "model": results.resolved.variants[0].model_path,
        "complete": results.complete,
        "cells": [cell_summary(results, cell) for cell in results.cells],
    }
