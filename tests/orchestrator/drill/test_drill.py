"""The drill: what it makes of a grid, what it kills and when, and a whole drill."""

import json
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.drill.compare_stores import compare_stores
from orchestrator.drill.drill import join, run_drill, shrink
from orchestrator.drill.faults import ProcessKind, StoreCounts, kill_here, plan_kills
from orchestrator.grid.parse import parse_grid, read_grid
from orchestrator.grid.source import Source
from orchestrator.store.store import Store
from tests.support.builders import make_failure, make_grade, make_row
from tests.support.drilled_demo import ROOT, SWEEP

GRIDS = sorted((ROOT / "examples").glob("*/grid.yaml"))


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.parent.name)
def test_drill_of_an_example_is_a_valid_grid_that_is_small_and_greedy(file: Path) -> None:
    grid = read_grid(file)
    small = parse_grid(Source("drill", shrink(grid.source.value, ["some.jsonl"], 8, "sqlite:///x.db"), {}))
    assert 1 <= len(small.variants) <= 3
    assert {v.model.path for v in small.variants} == {grid.variants[0].model.path}
    assert {v.spec.method for v in small.variants} <= {v.spec.method for v in grid.variants}
    assert small.sampling.temperature == 0
    assert len(small.token_limits) <= 2
    assert max(small.token_limits) <= 64
    assert small.runtime.attempts == grid.runtime.attempts + 8, "draws outlive the kills that are ordered"
    assert small.runtime.tracking_uri == "sqlite:///x.db", "the user's own MLflow is left alone"


@given(
    st.integers(0, 999),
    st.integers(0, 40),
    st.builds(StoreCounts, st.integers(1, 500), st.integers(1, 500), st.integers(1, 9)),
)
def test_kills_are_a_function_of_the_seed_and_fall_within_the_sweep(seed: int, kills: int, whole: StoreCounts) -> None:
    planned = plan_kills(seed, kills, whole)
    assert planned == plan_kills(seed, kills, whole)
    assert len(planned) == kills
    assert all(0 <= kill.at < whole.total for kill in planned)
    assert all(kill.at < whole.patches for kill in planned if kill.kind is ProcessKind.PRUNER)
    counts = Counter(kill.kind for kill in planned)
    assert ProcessKind.RANK not in counts
    assert not counts or max(counts.values()) - min(counts[k] for k in ProcessKind if k is not ProcessKind.RANK) <= 1


def test_another_seed_kills_otherwise() -> None:
    whole = StoreCounts(100, 200, 3)
    assert plan_kills(1, 8, whole) != plan_kills(2, 8, whole)


def test_process_that_is_not_rays_is_left_alone() -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        assert kill_here(bystander.pid) is None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert kill_here(bystander.pid) is None


def test_store_below_a_bucket_keeps_the_options_of_its_place() -> None:
    assert join("s3://bucket/mine?region=x", "drills/1") == "s3://bucket/mine/drills/1?region=x"
    assert join("/shared/mine/", "drills/1") == "/shared/mine/drills/1"


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Store, Store]:
    """Two stores with the same two draws and grades."""
    pair = Store.open(str(tmp_path / "undisturbed")), Store.open(str(tmp_path / "disturbed"))
    for store in pair:
        store.commit_draws([make_row(), make_row(prompt="p1")])
        store.commit_grades([make_grade(), make_grade("p1")])
    return pair


def differences(stores: tuple[Store, Store], folder: Path) -> dict[str, int]:
    found = compare_stores(*stores, folder)
    names = ("missing", "surplus", "repeated", "failures", "changed", "resampled")
    counts = {name: len(getattr(found, name)) for name in names}
    assert found.identical == (not any(n for name, n in counts.items() if name != "resampled"))
    return {name: n for name, n in counts.items() if n}


def test_same_rows_by_other_workers_at_other_times_are_the_same(stores: tuple[Store, Store], tmp_path: Path) -> None:
    late = replace(make_row(prompt="p2"), worker="engine-9", created_at=99.0)
    stores[0].commit_draws([make_row(prompt="p2")])
    stores[1].commit_draws([late])
    assert differences(stores, tmp_path) == {}


@pytest.mark.parametrize(
    ("happens", "found"),
    [
        (lambda undisturbed, _: undisturbed.commit_draws([make_row(prompt="p2")]), "missing"),
        (lambda undisturbed, _: undisturbed.commit_grades([make_grade("p2")]), "missing"),
        (lambda _, disturbed: disturbed.commit_draws([make_row(prompt="p2")]), "surplus"),
        (lambda _, disturbed: disturbed.commit_draws([make_row()]), "repeated"),
        (lambda _, disturbed: disturbed.commit_grades([make_grade()]), "repeated"),
        (lambda _, disturbed: disturbed.commit_failures([make_failure()]), "failures"),
    ],
)
def test_difference_is_found(stores: tuple[Store, Store], tmp_path: Path, happens, found: str) -> None:
    happens(*stores)
    assert differences(stores, tmp_path) == {found: 1}


def test_other_weights_are_a_change_and_other_tokens_are_said_apart(tmp_path: Path) -> None:
    undisturbed, disturbed = Store.open(str(tmp_path / "undisturbed")), Store.open(str(tmp_path / "disturbed"))
    undisturbed.commit_draws([make_row(), make_row(prompt="p1")])
    undisturbed.commit_grades([make_grade(), make_grade("p1")])
    disturbed.commit_draws([replace(make_row(), weights_digest="others"), make_row((9, 9, 9, 9), prompt="p1")])
    disturbed.commit_grades([make_grade(), replace(make_grade("p1"), verdict="INCORRECT")])
    assert differences((undisturbed, disturbed), tmp_path) == {"changed": 1, "resampled": 1}
    told = "\n".join(compare_stores(undisturbed, disturbed, tmp_path).lines())
    assert "1 of 2 draws have other tokens" in told
    assert "c/answers/p0/0/0: weights_digest" in told


def test_verdict_that_a_grader_came_to_at_last_is_the_one_that_counts(
    stores: tuple[Store, Store], tmp_path: Path
) -> None:
    stores[0].commit_grades([make_grade("p2")])
    failed = replace(make_grade("p2"), verdict="UNPARSED", extracted="", cause="crash: killed")
    stores[1].commit_grades([failed])
    assert differences(stores, tmp_path) == {"missing": 1}
    stores[1].commit_grades([make_grade("p2")])
    assert differences(stores, tmp_path) == {}
    assert compare_stores(*stores, tmp_path).grader_retries == 1


def test_whole_drill_passes_and_tells_of_every_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    grid = read_grid(ROOT / "examples" / "tiny" / "grid.yaml")
    benchmark = str(ROOT / "examples" / "tiny" / "chain-mixed.jsonl")
    small = shrink(grid.source.value, [benchmark], 3, f"sqlite:///{tmp_path / 'mlflow.db'}")
    small["variants"] = small["variants"][:1]
    small["runtime"]["commit_seconds"] = 0.001
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(small))))
    command = [*SWEEP, str(tmp_path / "grid.yaml"), "--ledger", str(tmp_path / "ledger")]
    done = run_drill(command, str(tmp_path), tmp_path, kills=3, seed=12)  # a grader's child, the driver, an engine
    assert not isinstance(done, int), (tmp_path / "undisturbed.log").read_text()
    told = done.lines()
    assert done.passed, (told, (tmp_path / "disturbed.log").read_text())
    assert len(done.run.delivered) + len(done.run.undelivered) == 3
    assert any(one.planned.kind is ProcessKind.DRIVER for one in done.run.delivered)
    assert sum(line.startswith("killed: ") for line in told) == len(done.run.delivered)
    assert "compared 100 draws" in "\n".join(told)
    assert told[-1] == "the same as the undisturbed run"
