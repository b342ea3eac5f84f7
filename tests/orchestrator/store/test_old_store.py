"""A store that an earlier version wrote is read, planned and completed as if this version had written it.

`tests/data/store_before_folders.tar.gz` was written by commit d3660b2, before the modules moved into folders, with the
real engine: a sweep of {dense, magnitude 0.5} x 4 problems x 2 seeds at limits [8, 16] that ended and was compacted,
and one of {dense, magnitude 0.5, 0.25} x 6 problems at [8, 32] whose driver was killed (SIGKILL) after the third patch
and 7 draws. User, host, machine and command in the dead driver's claim were replaced by hand. What is owed of the grid
below was computed by `python -m orchestrator plan --json` of that commit.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.__main__ import main
from orchestrator.store import load_draws
from orchestrator.store.claim import Claim, read_claim
from orchestrator.store.lease import claim_path
from tests.support import ROOT
from tests.support.builders import TinySweep

ARCHIVE = ROOT / "tests" / "data" / "store_before_folders.tar.gz"
PATCHES = ["5317d83395a3869706a8", "674092584ddb18001c05", "939e0338f7ac04068714"]
OWED = {
    "cells": 12,
    "patches": {"held": 3, "owed": ["magnitude + uniform at 0.75"]},
    "draws": {"held": 8, "owed": 40},
    "draws_owed": {"new": 25, "continued_traces": 8, "stored_traces_without_answers": 7},
    "answers_owed_to_stored_traces": 7,
    # 2 had no grade; the other 36 have one by exact@1, which today's exact judges anew.
    "answers_to_grade": 36 + 2,
    "thinking_tokens_at_most": 928,
    "thinking_tokens_expected": 664,
}
CONTEXTS = [
    ("02289983ce634e91cfd4", 8, 4),
    ("b2520f737413a26e907c", 8, 4),
    ("91911bef73934fd2f075", 12, 0),
    ("bce9c72671205dd43501", 12, 0),
]
"""(context, draws owed, draws complete)."""


@pytest.fixture
def old(tmp_path: Path) -> TinySweep:
    """The old store, and a grid that asks for more than its sweeps did."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    magnitude = {"method": "magnitude", "sparsity": [0.5, 0.25, 0.75]}
    return TinySweep(
        tmp_path,
        variants=[{"method": "dense"}, magnitude],
        limits=(8, 16, 32),
        benchmarks={"first": range(6)},
        runtime={"grader": "exact"},
    )


def plan(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the plan command prints."""
    capsys.readouterr()
    assert main(["plan", str(sweep.write_grid()), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def rows(sweep: TinySweep, table: str) -> list[dict[str, Any]]:
    return sweep.store.read_all(table).to_pylist()


def patch_files(sweep: TinySweep) -> dict[str, tuple[int, bytes]]:
    """Path -> (time of its last change, content) of every patch's files."""
    folder = Path(sweep.store.root, "patches")
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_plan_of_an_old_store_says_what_its_own_version_said(
    old: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(old, capsys)
    assert {key: found[key] for key in OWED} == OWED
    assert [(one["context"], one["draws_owed"], one["draws_held"]) for one in found["contexts"]] == CONTEXTS
    assert old.store.reported == set()


def test_old_store_is_completed_by_what_it_owes_and_nothing_is_made_again(
    old: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    draws, grades, patches = rows(old, "draws"), rows(old, "grades"), patch_files(old)
    assert old.run() == "done"
    after = rows(old, "draws")
    assert [row for row in draws if row not in after] == [], "stored draws stay as they are"
    assert [row for row in grades if row not in rows(old, "grades")] == [], "and so do their grades"
    made = [row for row in after if row not in draws]
    stored = {(row["context_id"], row["prompt_id"], row["seed"]) for row in draws}
    again = [row for row in made if (row["context_id"], row["prompt_id"], row["seed"]) in stored]
    assert len(made) == len({(row["context_id"], row["prompt_id"], row["seed"]) for row in made}) == 40
    assert len(again) == 8 + 7
    assert sorted(bool(row["trace_ids"]) for row in again) == [False] * 7 + [True] * 8
    assert all(row["start"] > 0 for row in again), "a stored trace goes on where it ended"
    assert {name: entry for name, entry in patch_files(old).items() if name in patches} == patches
    assert sorted(old.store.patch_ids() - set(PATCHES)) == ["8332fc5df1da2b9a0a5f"]
    found = plan(old, capsys)
    assert (found["draws"], found["patches"]["owed"], found["answers_to_grade"]) == ({"held": 48, "owed": 0}, [], 0)


def test_claim_of_an_old_driver_is_read(old: TinySweep) -> None:
    assert read_claim(old.store.get_document(claim_path("tiny"))) == Claim(
        token="9cfdde0f55534e0fbda7f1c9b7c98300",
        host="old-host",
        process_space="00000000-0000-0000-0000-000000000000 pid:[1]",
        pid=940,
        started="201624",
        user="somebody",
        command="sweep.py grid.yaml",
        since=1795615086.024694,
        beat_seconds=5.0,
        beat=4,
    )


def test_old_draws_are_loaded_in_one_table(old: TinySweep) -> None:
    assert load_draws(old.store).num_rows == 16 + 7
