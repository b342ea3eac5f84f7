"""`python -m orchestrator.sweep GRID.yaml`: run a sweep, or resume it.

Exit status: 0 complete, 2 bad input (nothing was started), 3 some cells incomplete. Running it again is always safe:
only what the store lacks is computed.
"""

import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from orchestrator.cli import COMPLETE, INCOMPLETE, open_store, run_command, sweep_parser
from orchestrator.console import say
from orchestrator.driver.calibration_traces import make_traces
from orchestrator.driver.event_log import EventLogWriter, event_log
from orchestrator.driver.observer import Observer
from orchestrator.driver.progress import closing_line, show_progress
from orchestrator.driver.tracking_thread import TrackingThread
from orchestrator.grid.parse import Grid, read_grid
from orchestrator.plan.as_text import awaiting_lines
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.prepare import prepare
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.plan.stored import read_stored
from orchestrator.results.cells import Results, read_results
from orchestrator.results.table import final_table
from orchestrator.store.compaction import compact_finished
from orchestrator.store.lease import BEAT_SECONDS, Lease, LeaseLost, hold_lease
from orchestrator.store.store import Store, StoreError
from workers.recipes import StartEngine, start_vllm


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = sweep_parser().parse_args(arguments)
    return run_command(lambda: sweep(Path(options.grid), options.store))


def sweep(grid_path: Path, store_uri: str | None = None) -> int:
    """Run or resume the sweep of `grid_path`. Returns the exit status; raises as `run` does."""
    grid = read_grid(grid_path)
    store = open_store(grid, store_uri)
    return run(replace(grid, store=store_uri or grid.store), store)


def run(grid: Grid, store: Store, start_engine: StartEngine = start_vllm, beat_seconds: float = BEAT_SECONDS) -> int:
    """Run or resume `grid` into `store` on engines that `start_engine` starts. Returns the exit status.

    Raises InputError or StoreError (SweepHeld, say) only before anything is started. A store that fails later leaves
    the sweep incomplete.
    """
    resolved, plan = prepare(grid, store)
    if plan.nothing_owed:
        say(f"{grid.name}: nothing is owed; all {plan.draws_stored} draws of {plan.cells} cells are in {store.uri}")
        return conclude(grid, store, read_results(store, resolved), "done")
    for warning in resolved.warnings:
        say(f"warning: {warning}")
    lease_lost: SimpleQueue[str] = SimpleQueue()
    with (
        # Outermost: MLflow and the lease do not wait for a store that is slow to take the log.
        event_log(store, grid.name, grid.runtime.event_log, say) as log,
        hold_lease(store, grid.name, say, lease_lost.put, beat_seconds) as lease,
    ):
        try:
            reason = "done"
            if resolved.awaiting:

                def drive_traces(plan: Plan) -> str:
                    with event_log(store, plan.resolved.grid.name, grid.runtime.event_log, say) as own_log:
                        return drive(plan, store, start_engine, lease, lease_lost, own_log)

                reason = make_traces(resolved.requests, store, drive_traces)
                resolved, plan = prepare(grid, store)
            if reason == "done":
                with TrackingThread(store, resolved, say) as tracking:
                    reason = drive(plan, store, start_engine, lease, lease_lost, log, tracking)
                    if reason != "done":
                        tracking.stop()
                    elif tracking.finish():
                        sync_at_end(store, resolved)
            results = read_results(store, resolved)
            if results.complete:
                tidy(store, [owed.decoding.context.context_id for owed in plan.contexts])
        except StoreError as error:
            say(f"{grid.name}: not finished: {error}")
            return INCOMPLETE
        except LeaseLost as error:
            say(f"{grid.name}: not finished by this driver: {error}. Nothing was lost, and nothing needs to be done")
            return INCOMPLETE
    return conclude(grid, store, results, reason)


def conclude(grid: Grid, store: Store, results: Results, reason: str) -> int:
    """Print the table of results, and why it is incomplete if it is. Returns the exit status."""
    print(final_table(results))
    if reason != "done":
        say(f"{grid.name}: not finished: {reason}. Run the same command again to resume")
    elif not results.complete:
        for line in awaiting_lines(results.resolved):
            say(f"{grid.name}: incomplete: {line}")
        missing = sum(cell.metrics.missing for cell in results.cells)
        ungraded = sum(cell.metrics.ungraded for cell in results.cells)
        failed = f", and grading failed on {ungraded} (its processes were killed or starved)" * (ungraded > 0)
        if missing or ungraded:
            say(
                f"{grid.name}: incomplete: {missing} answers are missing{failed}; `{grid.command('explain')}` says why."
                " The same command tries them again"
            )
    for line in sorted(store.reported):
        say(line)
    return COMPLETE if results.complete else INCOMPLETE


def drive(
    plan: Plan,
    store: Store,
    start_engine: StartEngine,
    lease: Lease,
    lease_lost: "SimpleQueue[str]",
    log: EventLogWriter,
    *observers: Observer,
) -> str:
    """Start a fleet, compute what the plan owes, and stop the fleet. Returns why it ended. Raises LeaseLost."""
    from orchestrator.cluster.ray_backend import RayBackend
    from orchestrator.driver.driver import Driver
    from orchestrator.driver.make_core import make_core
    from orchestrator.driver.worker_recipes import WorkerRecipes

    grid = plan.resolved.grid
    say(
        f"{grid.name}: {plan.draws_owed} draws and {len(plan.patches)} patches are owed, "
        f"{plan.draws_stored} draws are stored; starting Ray"
    )
    with closing(RayBackend.connect(lease)) as backend:
        # Plan again: an engine that outlived a killed driver may have committed while Ray started.
        plan = make_plan(plan.resolved, read_stored(store, plan.resolved))
        devices = backend.devices()
        if devices.nodes > 1 and store.local:
            say(f"{devices.nodes} nodes: those that do not see {store.root} cannot be used; share it, or use s3://")
        core = make_core(plan, store, grid.runtime, devices)
        log.begin(core)
        say(f"fleet: {devices.cpus} CPUs, {devices.gpus} GPUs on {devices.nodes} node{'s' * (devices.nodes != 1)}")
        with (
            tempfile.TemporaryDirectory(prefix="prunesweep-") as scratch,
            show_progress(plan.resolved.labels) as progress,
        ):
            views: list[Observer] = [log, progress, *observers]
            recipes = WorkerRecipes(grid.runtime, store, Path(scratch), start_engine)
            reason = Driver(core, plan, backend, recipes, views, lease_lost).run()
        say(f"{grid.name}: {closing_line(core)}")
    return reason


def tidy(store: Store, context_ids: Iterable[str]) -> None:
    """Compact complete contexts. A failure is only reported, since their draws and grades are stored either way."""
    try:
        compact_finished(store, context_ids)
    except Exception as error:  # such as a part that has become unreadable since the results were read
        cause = f"({type(error).__name__}: {str(error)[:300]})"
        say(f"the store is not compacted {cause}; nothing is missing, but its many small files take longer to read")


def sync_at_end(store: Store, resolved: ResolvedGrid) -> None:
    """Bring MLflow up to date. A failure is only reported, since the sweep is done either way."""
    from orchestrator.results.tracking import sync

    try:
        uri = sync(store, resolved)
    except Exception as error:  # whatever MLflow or its database raises: it is only a view
        cause = f"({type(error).__name__}: {str(error)[:200]})"
        say(f"MLflow is not up to date {cause}; `{resolved.grid.command('sync')}` writes it")
    else:
        say(f"MLflow: mlflow ui --backend-store-uri {uri}")


if __name__ == "__main__":
    sys.exit(main())
