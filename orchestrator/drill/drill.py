"""`python -m orchestrator drill GRID.yaml`: does this cluster, with this storage, lose anything when things die?

A small version of the grid is swept twice, on the same cluster and storage: once undisturbed, once while the driver,
engines, pruners, graders and their children are killed at random moments (orchestrator/drill/faults.py). The two stores
are then compared row by row (orchestrator/drill/compare_stores.py). Exit status: 0 if they are the same, else 3.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval.benchmarks import load_benchmark
from eval.problems import Problem
from eval.spec import BenchmarkSpec
from orchestrator.cli import BAD_INPUT, COMPLETE, INCOMPLETE, open_store
from orchestrator.console import say
from orchestrator.drill.compare_stores import StoreComparison, compare_stores
from orchestrator.drill.faults import KilledRun, count_store, plan_kills, run_under_kills
from orchestrator.grid.format import OWN_TRACES
from orchestrator.grid.parse import read_grid
from orchestrator.store.store import Store
from pruning.spec import DATA_FIELDS

SWEEP = (sys.executable, "-m", "orchestrator.sweep")
VARIANT_ENTRIES = 3
LONGEST = 64
"""Largest limit in thinking tokens: a drill is about commits, not about reasoning."""
ANSWER_TOKENS = 32
SAMPLES = 16
COMMIT_SECONDS = 0.5
IN_FLIGHT = 8


@dataclass(frozen=True)
class DrillReport:
    """What a drill did and found."""

    run: KilledRun
    comparison: StoreComparison

    @property
    def passed(self) -> bool:
        return self.run.status == COMPLETE and self.comparison.identical

    def lines(self) -> list[str]:
        """The report, for a person."""
        lines = [f"killed: {kill.process}; stored by then: {kill.stored}" for kill in self.run.delivered]
        lines += [f"not killed: {kill.kind} (none was up when its moment came)" for kill in self.run.undelivered]
        lines.append(f"{len(self.run.delivered)} kills; the command was run {self.run.runs} times")
        if self.run.status != COMPLETE:
            lines.append(f"the last run ended with status {self.run.status}: the sweep is not complete")
        lines += self.comparison.lines()
        return [*lines, "the same as the undisturbed run" if self.passed else "NOT the same as the undisturbed run"]


def drill(grid_path: Path, store_uri: str | None, kills: int, seed: int, problems: int) -> int:
    """Run the drill. Returns the exit status. Raises InputError or StoreError as a sweep does."""
    grid = read_grid(grid_path)
    where = drill_uri(open_store(grid, store_uri))
    folder = Path(tempfile.mkdtemp(prefix="prunesweep-drill-"))
    benchmarks = [_write_benchmark(folder, spec, problems) for spec in grid.benchmarks]
    small = shrink(grid.source.value, benchmarks, kills, f"sqlite:///{folder / 'mlflow.db'}")
    (folder / "grid.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    command = [*SWEEP, str(folder / "grid.yaml")]
    done = run_drill(command, where, folder, kills, seed, grid.runtime.tensor_parallel > 1)
    if isinstance(done, int):
        return done
    print("\n".join(done.lines()))
    say(f"stores: {where}; grid and logs: {folder}. Delete both when you are done")
    return COMPLETE if done.passed else INCOMPLETE


def run_drill(
    command: Sequence[str], where: str, folder: Path, kills: int, seed: int, ranks: bool = False
) -> DrillReport | int:
    """Sweep twice with `command` + `--store`, undisturbed and under kills, and compare; logs go into `folder`.

    An int is the exit status of an undisturbed sweep that does not end complete.
    """
    undisturbed, disturbed = Store.open(join(where, "undisturbed")), Store.open(join(where, "disturbed"))
    say(f"drill: first the undisturbed sweep (log: {folder / 'undisturbed.log'})")
    first = run_under_kills([*command, "--store", undisturbed.uri], undisturbed, (), folder / "undisturbed.log")
    if first.status != COMPLETE:
        say(f"the undisturbed sweep is not complete (status {first.status}); read {folder / 'undisturbed.log'}")
        return first.status if first.status == BAD_INPUT else INCOMPLETE
    whole = count_store(undisturbed)
    planned = plan_kills(seed, kills, whole, ranks)
    say(f"drill: {whole}; now with {kills} kills (seed {seed}, log: {folder / 'disturbed.log'})")
    second = run_under_kills([*command, "--store", disturbed.uri], disturbed, planned, folder / "disturbed.log")
    return DrillReport(second, compare_stores(undisturbed, disturbed, folder / "patches"))


def shrink(grid: Mapping[str, Any], benchmarks: Sequence[str], kills: int, tracking_uri: str) -> dict[str, Any]:
    """The drill's version of a grid's source: the same methods and settings, little of each. Pure.

    The first model, one variant of each of the first entries, and the two smallest limits. Decoding is greedy, so that
    two runs can be compared token by token. A draw gets one attempt more for every kill.
    """
    sampling = {"temperature": 0.0, "seeds": list(grid["sampling"].get("seeds", [0]))[:1]}
    budget = dict(grid["budget"])
    if budget.get("answer_tokens"):
        budget["answer_tokens"] = min(budget["answer_tokens"], ANSWER_TOKENS)
    runtime = dict(grid.get("runtime") or {})
    runtime |= {
        "commit_seconds": COMMIT_SECONDS,
        "in_flight": min(runtime.get("in_flight") or IN_FLIGHT, IN_FLIGHT),
        "attempts": kills + runtime.get("attempts", 3),
        "tracking_uri": tracking_uri,
    }
    small = dict(grid) | {
        "name": f"{grid['name']}-drill",
        "models": list(grid["models"])[:1],
        "variants": [_first_of(entry) for entry in grid["variants"][:VARIANT_ENTRIES]],
        "token_limits": sorted({min(limit, LONGEST) for limit in sorted(grid["token_limits"])[:2]}),
        "benchmarks": list(benchmarks),
        "sampling": sampling,
        "budget": budget,
        "runtime": runtime,
    }
    return small | ({"calibration": _few(grid["calibration"])} if grid.get("calibration") else {})


def _first_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The first variant of an entry, which may have lists of values."""
    return {
        key: _few(value) if key in DATA_FIELDS else value[0] if isinstance(value, list) else value
        for key, value in entry.items()
    }


def _few(calibration: Any) -> dict[str, Any]:
    """A little of the first source; of the first that is not the model's own traces, which would be drawn twice and may
    differ."""
    sources = calibration if isinstance(calibration, list) else [calibration]
    entries = [{"data": source} if isinstance(source, str) else dict(source) for source in sources]
    chosen = next((entry for entry in entries if entry["data"] != OWN_TRACES), entries[0])
    return chosen | {"samples": min(chosen.get("samples", SAMPLES), SAMPLES)}


def drill_uri(store: Store) -> str:
    """A new folder for the drill's two stores inside the user's store, to test the same disk or bucket."""
    return join(store.root if store.local else store.uri, f"drills/{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")


def join(uri: str, name: str) -> str:
    """The address of `name` below a store; an object store's options stay at the end."""
    base, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def _write_benchmark(folder: Path, spec: BenchmarkSpec, count: int) -> str:
    benchmark = load_benchmark(spec)
    file = folder / f"{benchmark.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in _some(benchmark.problems, count)), encoding="utf-8")
    return str(file)


def _some(problems: Iterable[Problem], count: int) -> list[dict[str, Any]]:
    rows = [{"id": p.id, "problem": p.text, "answer": p.answer, "choices": p.choices} for p in problems]
    return [{key: value for key, value in row.items() if value is not None} for row in rows[:count]]
