"""`python -m orchestrator VERB GRID.yaml`: plan, run and inspect sweeps.

Every verb reads the grid and the store, except `replay`, which reads an event log.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eval.spec import nearest
from orchestrator.cli import COMPLETE, INCOMPLETE, grid_argument, open_store, run_command
from orchestrator.console import say
from orchestrator.grid.errors import InputError
from orchestrator.grid.parse import read_grid
from orchestrator.plan.plan import make_plan
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.plan.stored import read_stored
from orchestrator.store.store import Store


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator",
        description="Plan, run and inspect sweeps.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")
    for name, (action, about) in VERBS.items():
        one = verbs.add_parser(name, help=about, description=about)
        one.set_defaults(verb=action)
        if name == "replay":
            _replay_arguments(one)
            continue
        grid_argument(one)
        if name in ("plan", "status", "explain", "regrade"):
            one.add_argument("--json", action="store_true", help="one JSON object on standard output")
        if name == "explain":
            one.add_argument("what", nargs="?", metavar="WHAT", help=WHAT)
            one.add_argument("--benchmark", help="only the draws of this benchmark")
            one.add_argument("--problem", metavar="ID", help="only the draws of this problem")
            one.add_argument("--seed", type=int, help="only the draws with this seed")
        if name == "report":
            one.add_argument("--output", default=None, help="folder for the report; STORE/reports/NAME if left out")
        if name == "regrade":
            one.add_argument("--grader", help="the grader to use; the grid's runtime.grader if left out")
        if name == "drill":
            one.add_argument("--kills", type=int, default=8, help="number of processes to kill; 8 if left out")
            one.add_argument("--seed", type=int, default=0, help="chooses what is killed, and when; 0 if left out")
            one.add_argument("--problems", type=int, default=8, help="problems of each benchmark; 8 if left out")
        if name == "export-model":
            one.add_argument("variant", metavar="VARIANT", help="the variant, by its label or patch id")
            one.add_argument("--to", required=True, type=Path, metavar="DIR", help="the folder to write, new or empty")
        if name == "export":
            one.add_argument("--output", required=True, type=Path, metavar="FILE.jsonl", help="the file to write")
            one.add_argument("--variant", default="dense", help="the variant, by its label; dense if left out")
            one.add_argument("--limit", type=int, metavar="TOKENS", help="cut traces to so many thinking tokens")
    options = parser.parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    return run_command(lambda: verb(options))


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="LOG", help="the event log, at the address that the sweep printed when it ended")
    parser.add_argument("--at", type=int, metavar="N", help="show the fleet and what is owed after event N instead")
    parser.add_argument("--worker", metavar="NAME", help="only what concerns this worker")
    about = parser.add_mutually_exclusive_group()
    about.add_argument("--context", metavar="ID", help="only what concerns this context (the beginning of its id)")
    about.add_argument("--draw", metavar="CONTEXT/NUMBER", help="only what concerns this draw of a context")
    parser.add_argument("--json", action="store_true", help="one JSON object per event on standard output")


def _read_inputs(options: argparse.Namespace) -> tuple[Store, ResolvedGrid]:
    grid = read_grid(Path(options.grid))
    store = open_store(grid, options.store)
    return store, resolve_grid(replace(grid, store=options.store or grid.store), store.traces_digest)


def run_sweep(options: argparse.Namespace) -> int:
    """Run or resume the sweep."""
    from orchestrator.sweep import sweep

    return sweep(Path(options.grid), options.store)


def show_plan(options: argparse.Namespace) -> int:
    """Print what is stored, what is owed and what it will cost. Starts nothing."""
    from orchestrator.plan.as_json import plan_json
    from orchestrator.plan.as_text import plan_text
    from orchestrator.plan.cost import cost
    from orchestrator.plan.throughput import read_rates

    store, resolved = _read_inputs(options)
    plan = make_plan(resolved, read_stored(store, resolved))
    costs = cost(plan, read_rates(store, resolved))
    print((plan_json if options.json else plan_text)(plan, costs, store.uri))
    return COMPLETE


def show_status(options: argparse.Namespace) -> int:
    """Print the table of results so far."""
    from orchestrator.results.cells import read_results
    from orchestrator.results.numbers import results_summary
    from orchestrator.results.table import final_table

    results = read_results(*_read_inputs(options))
    print(json.dumps(results_summary(results)) if options.json else final_table(results))
    if not results.complete:
        say(f"to see why draws are missing: {results.resolved.grid.command('explain')}")
    return COMPLETE if results.complete else INCOMPLETE


def show_explanation(options: argparse.Namespace) -> int:
    """Print why a cell or draw is complete or owed, and what resembles it in the store."""
    from orchestrator.explain.as_json import explanation_json
    from orchestrator.explain.as_text import explanation_text
    from orchestrator.explain.explain import explain
    from orchestrator.explain.selection import Selection

    selection = Selection(options.benchmark, options.problem, options.seed)
    explanation = explain(*_read_inputs(options), options.what, selection)
    print(explanation_json(explanation) if options.json else explanation_text(explanation))
    return COMPLETE


def write_report(options: argparse.Namespace) -> int:
    """Draw the curves and write every cell as a row."""
    from orchestrator.results import report
    from orchestrator.results.cells import read_results

    store, resolved = _read_inputs(options)
    results = read_results(store, resolved)
    default = Path(store.root if store.local else ".", "reports", resolved.grid.name)
    for file in report.write_report(results, Path(options.output or default)):
        say(f"wrote {file}")
    return COMPLETE if results.complete else INCOMPLETE


def write_mlflow(options: argparse.Namespace) -> int:
    """Write all results into MLflow."""
    from orchestrator.results.tracking import sync

    say(f"MLflow: mlflow ui --backend-store-uri {sync(*_read_inputs(options))}")
    return COMPLETE


def run_regrade(options: argparse.Namespace) -> int:
    """Grade the stored answers that the grader has not judged."""
    from orchestrator.regrade import choose_grader, regrade

    grid = read_grid(Path(options.grid))
    grader = choose_grader(grid, options.grader)
    store = open_store(grid, options.store)
    regraded = regrade(store, resolve_grid(grid, store.traces_digest), grader)
    print(regraded.json() if options.json else "\n".join(regraded.lines()))
    return COMPLETE


def export_traces(options: argparse.Namespace) -> int:
    """Write a variant's traces as calibration data."""
    from orchestrator.results.export import write_traces

    count = write_traces(*_read_inputs(options), options.variant, options.limit, options.output)
    say(f"wrote {count} traces to {options.output}")
    return COMPLETE


def export_weights(options: argparse.Namespace) -> int:
    """Write a variant's weights as a Hugging Face folder."""
    from orchestrator.results.export_model import export_model

    digest = export_model(*_read_inputs(options), options.variant, options.to)
    say(f"wrote {options.to} (digest {digest[:12]}); its README.md is a model card")
    return COMPLETE


def run_drill(options: argparse.Namespace) -> int:
    """Sweep a small version of the grid while killing its processes; check that nothing is lost."""
    from orchestrator.drill.drill import drill

    return drill(Path(options.grid), options.store, options.kills, options.seed, options.problems)


def replay_log(options: argparse.Namespace) -> int:
    """Say what a sweep's core decided, event by event, and why."""
    from orchestrator.explain.replay import Replay, open_log
    from orchestrator.explain.replay_story import find_story
    from orchestrator.explain.replay_text import replay_json, replay_text, state_text

    log = open_log(options.log)
    story = find_story(log.header["start"], options.worker, options.context, options.draw)
    replay = Replay(log)
    if options.at is not None:
        lines = state_text(replay, options.at, story)
    else:
        lines = (replay_json if options.json else replay_text)(replay, story)
    if options.worker is not None:  # whether there is such a worker is known at the end of the log
        lines = iter(list(lines))
        if options.at is None and options.worker not in replay.workers:
            close = nearest(options.worker, replay.workers)
            raise InputError(f"--worker {options.worker}: the log has no such worker.{close}")
    for line in lines:
        print(line)
    for line in replay.summary():
        say(line)
    return INCOMPLETE if replay.different else COMPLETE


WHAT = (
    "a variant ('wanda + uniform at 0.5'), a variant at one limit ('wanda + uniform at 0.5 @ 1024'), the first digits "
    "of a patch's or context's id, or a draw as CONTEXT/PROMPT/SEED; if left out, every cell in one line"
)
VERBS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "plan": (show_plan, "print what is stored, what is owed and what it will cost; starts nothing"),
    "sweep": (run_sweep, "run a sweep, or resume it"),
    "status": (show_status, "print the table of results so far"),
    "explain": (show_explanation, "say why a cell or draw is complete or owed, and what resembles it in the store"),
    "report": (write_report, "draw the curves, and write every cell as a row of a CSV file"),
    "sync": (write_mlflow, "write all results into MLflow, as a sweep does while it runs"),
    "regrade": (run_regrade, "grade the stored answers that a grader has not judged, without an engine"),
    "export": (export_traces, "write a variant's traces as calibration data"),
    "export-model": (export_weights, "write a stored variant as a Hugging Face folder with a model card"),
    "drill": (
        run_drill,
        "sweep a small version of the grid while killing its processes; is anything lost?",
    ),
    "replay": (replay_log, "step through a sweep's event log: what was decided, and why"),
}

if __name__ == "__main__":
    sys.exit(main())
