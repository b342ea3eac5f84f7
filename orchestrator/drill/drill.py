"""`python -m orchestrator drill GRID.yaml`: does this cluster, with this storage, lose anything when things die?

A small version of the grid is swept twice, on the same cluster and the same kind of storage: once in peace, once while
the driver, engines, pruners, graders and their children are killed at random moments (orchestrator/drill/faults.py).
What the two runs committed is then compared row by row (orchestrator/drill/compare_stores.py). Exit status: 0 the same,
3 not.
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

from eval.benchmarks import Problem, load_benchmark
from orchestrator.cli import BAD_INPUT, COMPLETE, INCOMPLETE, open_store
from orchestrator.console import say
from orchestrator.drill.compare_stores import StoreComparison, compare_stores
from orchestrator.drill.faults import DeliveredKill, KilledRun, count_store, plan_kills, run_under_kills
from orchestrator.grid.parse import read_grid
from orchestrator.store.store import Store

SWEEP = (sys.executable, "-m", "orchestrator.sweep")
VARIANT_ENTRIES = 3
LONGEST = 64
"""Thinking tokens: a drill is about commits, not about thoughts."""
ANSWER_TOKENS = 32
SAMPLES = 16
COMMIT_SECONDS = 0.5
IN_FLIGHT = 8


@dataclass(frozen=True)
class Drilled:
    """What a drill did and found."""

    run: KilledRun
    comparison: StoreComparison

    @property
    def passed(self) -> bool:
        return self.run.status == COMPLETE and self.comparison.identical

    def lines(self) -> list[str]:
        """The report, for a person."""
        told = [_tell(one) for one in self.run.struck]
        told += [f"not struck: {strike.kind} (none was up when its moment came)" for strike in self.run.undelivered]
        told.append(f"{len(self.run.struck)} kills; the command was run {self.run.runs} times")
        if self.run.status != COMPLETE:
            told.append(f"the last run ended with status {self.run.status}: the sweep is not complete")
        told += self.comparison.lines()
        return [*told, "the same as the undisturbed run" if self.passed else "NOT the same as the undisturbed run"]


def drill(grid_path: Path, store_uri: str | None, kills: int, seed: int, problems: int) -> int:
    """Run the drill. Returns the exit status. Raises InputError or StoreError as a sweep does."""
    grid = read_grid(grid_path)
    where = drill_uri(open_store(grid, store_uri))
    folder = Path(tempfile.mkdtemp(prefix="prunesweep-drill-"))
    benchmarks = [_write_benchmark(folder, name, problems) for name in grid.benchmarks]
    small = shrink(grid.source.value, benchmarks, kills, f"sqlite:///{folder / 'mlflow.db'}")
    (folder / "grid.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    command = [*SWEEP, str(folder / "grid.yaml")]
    done = run_drill(command, where, folder, kills, seed, grid.runtime.tensor_parallel > 1)
    if isinstance(done, int):
        return done
    print("\n".join(done.lines()))
    say(f"stores: {where}; grid and logs: {folder}. Delete both when you have seen enough")
    return COMPLETE if done.passed else INCOMPLETE


def run_drill(
    command: Sequence[str], where: str, folder: Path, kills: int, seed: int, ranks: bool = False
) -> Drilled | int:
    """Sweep twice with `command` + `--store`, in peace and in a storm, and compare; logs go into `folder`.

    An int is the exit status of a sweep that does not even end complete in peace.
    """
    undisturbed, disturbed = Store.open(join(where, "undisturbed")), Store.open(join(where, "disturbed"))
    say(f"drill: the sweep in peace first (log: {folder / 'undisturbed.log'})")
    peace = run_under_kills([*command, "--store", undisturbed.uri], undisturbed, (), folder / "undisturbed.log")
    if peace.status != COMPLETE:
        say(f"the sweep does not end complete in peace (status {peace.status}); read {folder / 'undisturbed.log'}")
        return peace.status if peace.status == BAD_INPUT else INCOMPLETE
    whole = count_store(undisturbed)
    strikes = plan_kills(seed, kills, whole, ranks)
    say(f"drill: {whole} in peace; now with {kills} kills (seed {seed}, log: {folder / 'disturbed.log'})")
    rough = run_under_kills([*command, "--store", disturbed.uri], disturbed, strikes, folder / "disturbed.log")
    return Drilled(rough, compare_stores(undisturbed, disturbed, folder / "patches"))


def shrink(grid: Mapping[str, Any], benchmarks: Sequence[str], kills: int, tracking_uri: str) -> dict[str, Any]:
    """The drill's version of a grid's source: same models, methods and settings, little of each. Pure.

    The first model; of the first variant entries one variant each; the two smallest limits; greedy decoding, so that
    two runs can be compared token by token. Draws must outlive as many losses as there are kills.
    """
    sampling = {"temperature": 0.0, "seeds": list(grid["sampling"].get("seeds", [0]))[:1]}
    budget = dict(grid["budget"])
    if budget.get("answer_tokens"):
        budget["answer_tokens"] = min(budget["answer_tokens"], ANSWER_TOKENS)
    runtime = dict(grid.get("runtime") or {})
    runtime |= {
        "commit_seconds": COMMIT_SECONDS,
        "in_flight": min(runtime.get("in_flight", IN_FLIGHT), IN_FLIGHT),
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
    """One variant of a product of lists."""
    first = {key: value[0] if isinstance(value, list) else value for key, value in entry.items()}
    return {key: _few(value) if isinstance(value, dict) else value for key, value in first.items()}


def _few(calibration: Mapping[str, Any]) -> dict[str, Any]:
    return dict(calibration) | {"samples": min(calibration.get("samples", SAMPLES), SAMPLES)}


def drill_uri(store: Store) -> str:
    """A folder for the drill's two stores inside the user's own, where the same disk or bucket is put to the test."""
    return join(store.root if store.local else store.uri, f"drills/{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")


def join(uri: str, name: str) -> str:
    """`name` below a store's place; an object store's options stay at the end."""
    base, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def _write_benchmark(folder: Path, name: str, count: int) -> str:
    benchmark = load_benchmark(name)
    file = folder / f"{benchmark.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in _some(benchmark.problems, count)), encoding="utf-8")
    return str(file)


def _some(problems: Iterable[Problem], count: int) -> list[dict[str, Any]]:
    rows = [{"id": p.id, "problem": p.text, "answer": p.answer, "choices": p.choices} for p in problems]
    return [{key: value for key, value in row.items() if value is not None} for row in rows[:count]]


def _tell(one: DeliveredKill) -> str:
    return f"killed: {one.process}; committed by then: {one.progress}"
