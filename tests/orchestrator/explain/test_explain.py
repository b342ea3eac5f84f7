"""`explain`: why a cell or a draw is complete or owed, and what resembles it. The sweeps run on scripted engines."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.__main__ import main
from orchestrator.explain.reasons import given_up
from tests.support import ROOT
from tests.support.builders import TINY, TinySweep, make_failure
from workers.engines.scripted_engine import Die
from workers.rows.tables import GradeRow

PRUNED = {"method": "magnitude", "sparsity": 0.5}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> TinySweep:
    sweep = TinySweep(tmp_path_factory.mktemp("finished"), variants=[{"method": "dense"}, PRUNED])
    make(sweep)
    return sweep


@pytest.fixture
def done(_finished: TinySweep, tmp_path: Path) -> TinySweep:
    """A finished sweep of two variants, in a copy of its own, to be changed as a user changes a grid."""
    shutil.copytree(_finished.folder / "store", tmp_path / "store")
    return replace(_finished, folder=tmp_path, variants=list(_finished.variants))


def make(sweep: TinySweep) -> None:
    """Run a sweep to its end, and keep the payloads of its names in the store as the command does."""
    for name, payload in sweep.resolve_grid().payloads.items():
        sweep.store.put_payload(name, payload)
    assert sweep.run() == "done"


def tell(sweep: TinySweep, *arguments: str) -> int:
    return main(["explain", str(sweep.write_grid()), *arguments])


def text(sweep: TinySweep, capsys: Capture, *arguments: str) -> str:
    assert tell(sweep, *arguments) == 0
    return capsys.readouterr().out


def told(sweep: TinySweep, capsys: Capture, *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text(sweep, capsys, *arguments, "--json"))
    return value


def reasons(value: dict[str, Any]) -> dict[int, list[tuple[str, int]]]:
    """Limit -> (why, draws) of each reason."""
    return {cell["limit"]: [(r["why"], r["draws"]) for r in cell["reasons"]] for cell in value["cells"]}


def similar(value: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(kind, differences in words) of every similar entry."""
    (context,) = value["contexts"]
    return [(one["kind"], [d["words"] for d in one["differences"]]) for one in context["look_alikes"]]


# --- complete ---------------------------------------------------------------------------------------------------------


def test_complete_cell_is_told_with_where_it_came_from(done: TinySweep, capsys: Capture) -> None:
    variant = done.resolve_grid().variants[1]
    context = variant.decodings[0].context
    value = told(done, capsys, "magnitude + uniform at 0.5 @ 8")
    ((cell,), (report,)) = value["cells"], value["contexts"]
    assert (cell["state"], cell["draws"], cell["complete"], cell["reasons"]) == ("complete", 8, 8, [])
    assert (report["patch"], report["patch_held"], report["look_alikes"]) == (variant.patch_id, True, [])
    held = report["held"]
    folder = Path(held["path"])
    assert folder == done.folder / "store" / "draws" / context.context_id
    assert held["parts"] == len(list(folder.glob("*.parquet")))
    (proved,) = {row["weights_digest"] for row in done.rows() if row["context_id"] == context.context_id}
    assert held["weights"] == [proved]
    assert held["draws"] == 8
    said = text(done, capsys, "magnitude + uniform at 0.5")
    assert "@ 8, 32: complete, all 8 draws are answered and graded" in said
    assert proved in said
    assert "engine scripted" in said


def test_draw_is_told_with_its_rows_and_verdicts_and_found_again_by_its_name(done: TinySweep, capsys: Capture) -> None:
    value = told(done, capsys, "dense", "--benchmark", "first", "--problem", "mixed-001", "--seed", "1")
    draw = value["contexts"][0]["draw"]
    assert [(one["limit"], one["why"]) for one in draw["limits"]] == [(8, "complete"), (32, "complete")]
    assert all(one["verdict"] for one in draw["limits"])
    (row,) = draw["rows"]
    assert {one["cut"] for one in draw["limits"]} == set(row["cuts"])
    context, prompt, seed = draw["name"].split("/")
    again = told(done, capsys, f"{context[:8]}/{prompt[:8]}/{seed}")
    assert again["contexts"][0]["draw"] == draw


# --- owed -------------------------------------------------------------------------------------------------------------


def test_nothing_yet_owes_the_patch_first(sweep: TinySweep, capsys: Capture) -> None:
    value = told(sweep, capsys, "dense")
    assert reasons(value) == {8: [("no-patch", 8)], 32: [("no-patch", 8)]}
    assert value["contexts"][0]["held"] is None


def test_smaller_limit_owes_an_answer_and_a_larger_one_the_extension(done: TinySweep, capsys: Capture) -> None:
    done.limits = (4, 32, 64)
    rows = [
        row
        for row in done.rows()
        if row["context_id"] == done.resolve_grid().variants[0].decodings[0].context.context_id
    ]
    grown = sum(not row["ended"] for row in rows)
    longer = sum(len(row["trace_ids"]) > 4 for row in rows)
    assert grown
    assert reasons(told(done, capsys, "dense")) == {4: [("answer", longer)], 32: [], 64: [("extension", grown)]}
    said = text(done, capsys, "dense")
    assert "the trace is stored: only the answer at cut 4 is owed" in said
    assert "the trace is stored up to 32 of 64 tokens: only its extension is owed" in said


def test_another_seed_owes_its_trace(done: TinySweep, capsys: Capture) -> None:
    done.seeds = (0, 1, 5)
    value = told(done, capsys, "dense @ 8")
    assert reasons(value) == {8: [("no-trace", 4)]}
    (reason,) = value["cells"][0]["reasons"]
    assert reason["sentence"] == "no trace yet with seed 5 (stored with seeds 0, 1 only)"
    assert reason["example"] == {"benchmark": "first", "problem": "mixed-000", "seed": 5}


def test_another_grader_owes_its_grades(done: TinySweep, capsys: Capture) -> None:
    done.runtime = {"grader": "exact"}
    value = told(done, capsys, "dense @ 8")
    assert reasons(value) == {8: [("grade", 8)]}
    assert "(judged by standard@" in value["cells"][0]["reasons"][0]["sentence"]


def test_corrected_gold_answer_owes_its_grades(done: TinySweep, capsys: Capture) -> None:
    file = done.write_grid()
    problems = done.folder / "first.jsonl"
    first, *others = problems.read_text().splitlines(keepends=True)
    problems.write_text("".join([json.dumps(json.loads(first) | {"answer": "77"}) + "\n", *others]))
    assert main(["explain", str(file), "dense @ 8"]) == 0
    assert "2  answered, but standard@" in (said := capsys.readouterr().out)
    assert "(judged against another gold answer than today's)" in said


def test_answer_that_the_grader_failed_on_is_told_as_failed(sweep: TinySweep, capsys: Capture) -> None:
    sweep.seeds, sweep.benchmarks = (0,), {"first": range(1)}
    make(sweep)
    grades = [
        row for context in sweep.store.contexts("grades") for row in sweep.store.read("grades", context).to_pylist()
    ]
    shutil.rmtree(sweep.folder / "store" / "grades")
    sweep.store.commit_grades([GradeRow(**(row | {"verdict": "UNPARSED", "cause": "timeout: 5 s"})) for row in grades])
    value = told(sweep, capsys)
    assert {cell["state"] for cell in value["cells"]} == {"failed"}
    assert reasons(value) == {8: [("grader-failed", 1)], 32: [("grader-failed", 1)]}
    assert "failed: timeout: 5 s" in text(sweep, capsys, "dense @ 8")


def test_what_is_owed_is_what_the_plan_says(sweep: TinySweep, capsys: Capture) -> None:
    assert sweep.run(stop_after=3) == "stopped by test"
    owed = sweep.plan().draws_owed
    assert 0 < owed < 8
    sweep.runtime = {"grader": "exact"}  # nothing is judged by it, so every draw that is answered owes a grade
    for found in reasons(told(sweep, capsys)).values():
        assert sum(draws for why, draws in found if why == "no-trace") == owed
        assert sum(draws for why, draws in found if why == "grade") == 8 - owed


def test_poison_draw_is_told_with_its_cause_until_it_is_made(sweep: TinySweep, capsys: Capture) -> None:
    sweep.seeds = (0,)
    sweep.run(Die(prompt=sweep.prompt(2)))
    (row,) = sweep.rows("failures")
    value = told(sweep, capsys)
    assert reasons(value) == {8: [("given-up", 1)], 32: [("given-up", 1)]}
    assert [cell["state"] for cell in value["cells"]] == ["failed", "failed"]
    (group,) = value["given_up"]
    assert (group["kind"], group["draws"], group["attempts"]) == ("engine-lost", 1, row["attempts"])
    assert group["cause"] == row["cause"]
    said = text(sweep, capsys)
    assert "1: given up, see below: engine-lost" in said
    assert f"engine-lost: {row['cause']} ({row['attempts']} attempts" in said
    assert row["cause"] in text(sweep, capsys, "dense", "--problem", "mixed-002")

    assert sweep.run() == "done"
    value = told(sweep, capsys)
    assert (reasons(value), value["given_up"]) == ({8: [], 32: []}, [])
    assert "given up" in text(sweep, capsys, "dense", "--problem", "mixed-002"), "its history stays with the draw"
    sweep.limits = (8, 32, 64)
    assert "given-up" not in str(reasons(told(sweep, capsys))), "it was made since; what is owed now has not failed"


def test_draws_given_up_alike_are_told_together_by_the_newest() -> None:
    rows = [make_failure("p0", created_at=1.0), make_failure("p1", created_at=3.0), make_failure("p2", created_at=2.0)]
    causes = ["died at ask 7", "died at ask 19", "no memory"]
    failures = [asdict(replace(row, cause=cause)) for row, cause in zip(rows, causes, strict=True)]
    groups = given_up([("dense", failure) for failure in failures])
    assert [(one.cause, one.draws, one.newest) for one in groups] == [("died at ask 19", 2, 3.0), ("no memory", 1, 2.0)]


# --- similar entries --------------------------------------------------------------------------------------------------


def test_other_temperature_is_named(done: TinySweep, capsys: Capture) -> None:
    done.temperature = 0.6
    value = told(done, capsys, "dense")
    assert reasons(value)[8] == [("no-trace", 8)], "the patch is the same"
    assert similar(value) == [("context", ["temperature 0.6 instead of 1.0"])]
    assert "here temperature 0.6 instead of 1.0" in text(done, capsys, "dense")


def test_other_sparsity_is_named_and_an_id_of_the_store_compared_with_the_grid(
    done: TinySweep, capsys: Capture
) -> None:
    stored = done.resolve_grid().variants[1].patch_id
    done.variants[1] = PRUNED | {"sparsity": 0.25}
    value = told(done, capsys, "magnitude + uniform at 0.25")
    assert reasons(value)[8] == [("no-patch", 8)]
    assert similar(value) == [("context", ["sparsity 0.25 instead of 0.5"])]
    shutil.rmtree(done.folder / "store" / "draws")
    assert similar(told(done, capsys, "magnitude + uniform at 0.25")) == [("patch", ["sparsity 0.25 instead of 0.5"])]
    foreign = told(done, capsys, stored[:8])["foreign"]
    assert (foreign["kind"], foreign["id"], foreign["variant"]) == ("patch", stored, "magnitude + uniform at 0.5")
    assert foreign["nearest"][0]["differences"][0]["words"] == "sparsity 0.5 instead of 0.25"
    assert "no part of this grid" in text(done, capsys, stored)


def test_changed_calibration_file_is_named(sweep: TinySweep, capsys: Capture) -> None:
    data = sweep.folder / "calibration.jsonl"
    shutil.copyfile(TINY / "calibration.jsonl", data)
    calibration = {"data": str(data), "samples": 4, "tokens": 32}
    sweep.variants = [{"method": "wanda", "sparsity": 0.5, "calibration": calibration}]
    sweep.benchmarks, sweep.seeds = {"first": range(1)}, (0,)
    make(sweep)
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    ((kind, (words,)),) = similar(told(sweep, capsys, "wanda + uniform at 0.5"))
    assert kind == "context"
    assert words.startswith("calibration data differ (content sha256 ")


def test_other_answer_settings_and_prompts_are_named(done: TinySweep, capsys: Capture) -> None:
    done.budget = {"answer_tokens": 20}
    value = told(done, capsys, "dense")
    assert reasons(value) == {8: [("answer", 8)], 32: [("answer", 8)]}
    assert similar(value) == [("answers", ["answer tokens 20 instead of 16"])]
    done.budget = {}
    file = done.write_grid()
    file.write_text(file.read_text() + "prompt: {preset: boxed}\n")
    assert main(["explain", str(file), "dense @ 8"]) == 0
    assert "stored under another prompt" in capsys.readouterr().out


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["magnitude + unifrom at 0.5"], "has no such variant. Did you mean 'magnitude + uniform at 0.5'?"),
        (["dense @ 30"], "has no such token limit; the nearest is 32. Its limits are 8, 32"),
        (
            ["dense", "--benchmark", "frist"],
            "frist: grid.yaml has no such benchmark. Did you mean 'first'?",
        ),
        (["dense", "--problem", "mixed-0O1"], "Did you mean 'mixed-001'?"),
        (["dense", "--seed", "7"], "--seed 7: grid.yaml has no such seed. Its seeds are 0, 1"),
        (["--problem", "mixed-001"], "say which cell"),
        (["abcdef012345"], "neither the grid nor the store has a patch or context with this id"),
    ],
)
def test_name_that_there_is_not_is_refused_with_the_nearest(
    done: TinySweep, capsys: Capture, asked: list[str], said: str
) -> None:
    assert tell(done, *asked) == 2
    captured = capsys.readouterr()
    assert said in captured.err.replace(str(done.folder) + "/", "")
    assert captured.out == ""


def test_two_variants_of_one_name_are_told_apart(done: TinySweep, capsys: Capture) -> None:
    done.variants.append(PRUNED | {"group": "row"})
    assert tell(done, "magnitude + uniform at 0.5") == 2
    assert "2 variants have this label; give the patch id" in (said := capsys.readouterr().err)
    assert "(group row instead of matrix)" in said
    patch = done.resolve_grid().variants[2].patch_id
    assert [cell["patch"] for cell in told(done, capsys, patch[:8])["cells"]] == [patch, patch]


def test_two_paths_to_one_content_are_one_cell(sweep: TinySweep, capsys: Capture) -> None:
    for name in ("one", "copy"):
        shutil.copyfile(TINY / "calibration.jsonl", sweep.folder / f"{name}.jsonl")
        calibration = {"data": str(sweep.folder / f"{name}.jsonl"), "samples": 4, "tokens": 32}
        sweep.variants.append({"method": "wanda", "sparsity": 0.5, "calibration": calibration})
    assert [cell["limit"] for cell in told(sweep, capsys, "wanda + uniform at 0.5")["cells"]] == [8, 32]


def test_limits_decoded_apart_are_found_by_their_contexts(sweep: TinySweep, capsys: Capture) -> None:
    sweep.budget = {"independent_limits": True}
    context = sweep.resolve_grid().variants[0].decodings[1].context.context_id
    assert [cell["limit"] for cell in told(sweep, capsys, context[:10])["cells"]] == [32]
    assert [cell["limit"] for cell in told(sweep, capsys, "dense")["cells"]] == [8, 32]


# --- every cell -------------------------------------------------------------------------------------------------------


def test_every_cell_has_a_line_with_its_state_and_first_reason(done: TinySweep, capsys: Capture) -> None:
    done.variants.append(PRUNED | {"sparsity": 0.75})
    lines = text(done, capsys).splitlines()
    assert lines[0].endswith("6 cells in " + done.store.uri + ": 4 complete, 2 owed, 0 failed")
    assert [line.split()[0] for line in lines[1:]] == ["complete"] * 4 + ["owed"] * 2
    assert lines[5].split("  ")[-1] == "8: no patch yet: it is made before any trace"
    assert similar(told(done, capsys, "magnitude + uniform at 0.75")) == [], (
        "that two cells of a grid differ, the grid says"
    )


def test_json_has_the_same_keys_whatever_is_asked(done: TinySweep, capsys: Capture) -> None:
    asked = (
        [],
        ["dense"],
        ["dense", "--problem", "mixed-000", "--seed", "0"],
        [done.resolve_grid().variants[0].patch_id],
    )
    keys = {tuple(told(done, capsys, *arguments)) for arguments in asked}
    assert keys == {
        ("name", "store", "what", "grader", "cells", "contexts", "given_up", "contexts_of_other_grids", "foreign")
    }


def test_explaining_loads_no_torch_vllm_ray_transformers_or_mlflow(done: TinySweep) -> None:
    done.resolve_grid()
    script = (
        "import sys; from orchestrator.__main__ import main; "
        "status = main(['explain', sys.argv[1]]) + main(['explain', sys.argv[1], 'dense']); "
        "heavy = {'torch', 'vllm', 'ray', 'transformers', 'mlflow'} & set(sys.modules); "
        "print('HEAVY', sorted(heavy)); sys.exit(status)"
    )
    command = [sys.executable, "-c", script, str(done.folder / "grid.yaml")]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "HEAVY []"
