"""Store -> MLflow: the only import of mlflow. A view: delete the database and `sync` rebuilds it.

One run for the sweep, under it one per variant (accuracy of each benchmark at step = token limit, so that MLflow draws
the curve), under that one per token limit. Runs are found again by a tag that holds a content id, and a metric's
timestamp is the time its last draw was committed, so writing twice changes nothing. Only complete cells get metrics; an
incomplete one says how many draws are missing. There is one writer, which uses the client API with explicit run ids.
"""

import contextlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A tracking server that is down must not hold up a sweep for minutes; `sync` catches up later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from orchestrator.identity import VERSION, canonical, name_of
from orchestrator.plan.resolved_grid import ResolvedGrid, ResolvedVariant
from orchestrator.results.cells import CellResult, Results, read_cells, read_results
from orchestrator.results.numbers import GRID_WIDE, against_numbers, cell_numbers
from orchestrator.store.store import Store
from pruning.spec import to_json

ID_TAG = "prunesweep.id"
SQLITE = "sqlite:///"
NOT_IN_KEYS = re.compile(r"[^/\w.\- :]")
"""What MLflow refuses in the name of a metric or a tag."""

for noisy in ("mlflow", "alembic"):  # they log every table of a new database, amid a sweep's own lines
    logging.getLogger(noisy).setLevel(logging.WARNING)


def tracking_uri(resolved: ResolvedGrid, store: Store) -> str:
    """Where MLflow's runs go: the grid's `tracking_uri`, else a database beside the store's data."""
    configured = resolved.grid.runtime.tracking_uri
    if configured:
        return configured
    return f"sqlite:///{Path(store.root, 'mlflow.db')}" if store.local else f"sqlite:///{Path('mlflow.db').absolute()}"


@dataclass
class Tracker:
    """Writes one sweep into MLflow. Raises MlflowException when the tracking server cannot be reached."""

    store: Store
    resolved: ResolvedGrid
    client: MlflowClient
    experiment: str
    runs: dict[str, str]
    """Content id -> run id, of the runs known to exist."""

    @classmethod
    def open(cls, store: Store, resolved: ResolvedGrid) -> "Tracker":
        uri = tracking_uri(resolved, store)
        if uri.startswith(SQLITE):
            _make_database(Path(uri.removeprefix(SQLITE).partition("?")[0]))
        client = MlflowClient(tracking_uri=uri)
        name = resolved.grid.runtime.experiment
        found = client.get_experiment_by_name(name)
        if found is not None:
            experiment = found.experiment_id
        else:
            artifacts = (
                Path(store.root, "mlflow-artifacts").as_uri() if uri.startswith(SQLITE) and store.local else None
            )
            experiment = client.create_experiment(name, artifact_location=artifacts)
        return cls(store, resolved, client, experiment, {})

    def begin(self) -> None:
        """Show the sweep and its variants as running."""
        sweep = self._run(self._sweep_name(), self.resolved.grid.name, None, {})
        self.client.update_run(sweep, status="RUNNING")
        self.client.log_batch(sweep, tags=[RunTag("mlflow.note.content", self._description())])

    def write_variant(self, variant: ResolvedVariant, results: Results | None = None) -> bool:
        """Bring one variant and its cells up to date with the store. Returns whether they are complete.

        `results`: everything that was read from the store already; comparisons with dense are only written from it.
        """
        sweep = self._run(self._sweep_name(), self.resolved.grid.name, None, {})
        if results is None:
            cells = read_cells(self.store, self.resolved, variant)
        else:
            cells = [cell for cell in results.cells if cell.variant.patch_id == variant.patch_id]
        name = name_of({"sweep": self._sweep_name(), "contexts": [d.context.context_id for d in variant.decodings]})
        settings = {f"prune.{key}": _text(value) for key, value in to_json(variant.spec).items()}
        settings["model"] = variant.model_label
        run = self._run(name, variant.full_label, sweep, settings)
        metrics = [metric for cell in cells if cell.metrics.complete for metric in _curve(cell)]
        self.client.log_batch(run, metrics=metrics, tags=[RunTag("prunesweep.patch", variant.patch_id)])
        by_limit: dict[int, list[CellResult]] = {}
        for cell in cells:
            by_limit.setdefault(cell.limit, []).append(cell)
        for limit, group in by_limit.items():
            label = f"{variant.label} @ {limit}"
            one = self._run(
                name_of({"variant": name, "limit": limit}), label, run, settings | {"token_limit": str(limit)}
            )
            detail = [metric for cell in group if cell.metrics.complete for metric in _detail(cell, results)]
            self._finish(one, group, detail, _notes(group))
        self._finish(run, cells, [])
        return all(cell.metrics.complete for cell in cells)

    def end(self, complete: bool) -> None:
        """Mark the sweep's run as finished or, if it is incomplete, as killed."""
        self.client.set_terminated(self._run(self._sweep_name(), self.resolved.grid.name, None, {}),
                                   "FINISHED" if complete else "KILLED")  # fmt: skip

    def _finish(self, run: str, cells: list[CellResult], metrics: list[Metric], notes: Sequence[RunTag] = ()) -> None:
        missing = sum(cell.metrics.missing + cell.metrics.ungraded for cell in cells)
        state = "complete" if not missing else f"{missing} draws missing"
        self.client.log_batch(run, metrics=metrics, tags=[RunTag("prunesweep.state", state), *notes])
        if missing:
            self.client.update_run(run, status="RUNNING" if any(c.outcomes for c in cells) else "SCHEDULED")
        else:
            finished = max((cell.finished_at for cell in cells), default=0.0)
            self.client.set_terminated(run, "FINISHED", end_time=int(finished * 1000))

    def _sweep_name(self) -> str:
        return name_of({"version": VERSION, "what": "sweep", "name": self.resolved.grid.name, "store": self.store.uri})

    def _description(self) -> str:
        grid = self.resolved.grid
        return (
            f"{len(self.resolved.variants)} variants × {len(grid.token_limits)} token limits on "
            f"{', '.join(b.name for b in self.resolved.benchmarks)}. Store: `{self.store.uri}`."
        )

    def _run(self, name: str, label: str, parent: str | None, params: Mapping[str, str]) -> str:
        """The run called `name`, found or created."""
        if name not in self.runs:
            found = self.client.search_runs([self.experiment], f"tags.`{ID_TAG}` = '{name}'", max_results=1)
            if found:
                self.runs[name] = found[0].info.run_id
            else:
                tags = {ID_TAG: name} | ({"mlflow.parentRunId": parent} if parent else {})
                run = self.client.create_run(self.experiment, run_name=label, tags=tags)
                self.runs[name] = run.info.run_id
                self.client.log_batch(self.runs[name], params=[Param(k, v) for k, v in params.items()])
        return self.runs[name]


def _make_database(file: Path) -> None:
    """Create MLflow's database whole or not at all.

    A process that is killed amid the dozens of migrations would leave a database that no later process can open.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    SqlAlchemyStore(f"{SQLITE}{beside}", str(file.parent / "mlruns")).engine.dispose()
    with contextlib.suppress(FileExistsError, FileNotFoundError):  # another process was first, and removed our file
        try:
            os.link(beside, file)
        except OSError:
            if not file.exists():  # no hard links on this disk; of two processes the last one wins
                os.replace(beside, file)
    for left in file.parent.glob(f"{file.name}.*.tmp"):
        left.unlink(missing_ok=True)


def sync(store: Store, resolved: ResolvedGrid) -> str:
    """Write everything that is stored of a sweep into MLflow. Returns the tracking URI."""
    tracker = Tracker.open(store, resolved)
    tracker.begin()
    results = read_results(store, resolved)
    states = [tracker.write_variant(variant, results) for variant in resolved.variants]
    complete = all(states)
    tracker.end(complete)
    return tracking_uri(resolved, store)


def _curve(cell: CellResult) -> list[Metric]:
    """A variant's points on the curves: the step is the token limit."""
    metrics, finished_ms = cell.metrics, int(cell.finished_at * 1000)
    assert metrics.accuracy is not None
    assert metrics.interval is not None
    tokens, benchmark = metrics.thinking_tokens, _key(cell.benchmark)
    points = {
        f"accuracy/{benchmark}": metrics.accuracy,
        f"accuracy_low/{benchmark}": metrics.interval.low,
        f"accuracy_high/{benchmark}": metrics.interval.high,
        f"thinking_tokens/{benchmark}": tokens.mean if tokens else 0.0,
        f"forced_rate/{benchmark}": metrics.forced_rate,
    }
    return [Metric(key, value, finished_ms, cell.limit) for key, value in points.items()]


def _detail(cell: CellResult, results: Results | None) -> list[Metric]:
    """All numbers of one cell, and of its comparison with dense if both are complete.

    But for the p-values that are corrected over the grid: a larger grid changes them, and MLflow keeps what it was
    told first.
    """
    values = cell_numbers(cell.metrics)
    name = (cell.variant.patch_id, cell.benchmark, cell.limit)
    against = results.against_dense.get(name) if results else None
    if against and not against.comparison.missing:
        values |= {key: value for key, value in against_numbers(against).items() if key not in GRID_WIDE}
    known = {f"{key}/{_key(cell.benchmark)}": value for key, value in values.items() if isinstance(value, (int, float))}
    return [Metric(key, float(value), int(cell.finished_at * 1000), 0) for key, value in known.items()]


def _notes(cells: Sequence[CellResult]) -> list[RunTag]:
    """What to know of each complete cell's interval; a metric cannot say it."""
    complete = [(cell.benchmark, cell.metrics.interval) for cell in cells if cell.metrics.complete]
    return [RunTag(f"interval_note/{_key(name)}", interval.note) for name, interval in complete if interval]


def _key(benchmark: str) -> str:
    """A benchmark's name as MLflow allows it: a file may be called what a metric may not."""
    return NOT_IN_KEYS.sub("_", benchmark)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


__all__ = ["MlflowException", "Tracker", "sync", "tracking_uri"]
