"""`export`: a variant's own traces from the store, as calibration data that pruning reads."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from eval.prompts import ChatTokenizer
from orchestrator.__main__ import main
from pruning.model.calibration import load_windows
from pruning.model.checkpoint import Checkpoint
from pruning.spec import CalibrationSpec
from tests.support.builders import TINY, TinySweep


@pytest.fixture
def done(sweep: TinySweep) -> TinySweep:
    """A complete sweep of the dense model: 4 problems, 2 seeds, traces up to 32 tokens."""
    assert sweep.run() == "done"
    return sweep


def export(sweep: TinySweep, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status, and the rows of the file if there is one."""
    file = sweep.folder / "out" / "traces.jsonl"
    status = main(["export", str(sweep.write_grid()), "--output", str(file), *options])
    return status, [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def stored(sweep: TinySweep) -> Iterator[tuple[tuple[str, int], dict[str, Any], list[dict[str, Any]]]]:
    """(problem id, seed), its row in the store, and its natural answers."""
    for row in sweep.rows():
        natural = [answer for answer in row["answers"] if not answer["forced"]]
        yield (row["problem_id"], row["seed"]), row, natural


def test_rows_are_what_the_model_read_and_wrote_itself(done: TinySweep) -> None:
    status, rows = export(done)
    assert status == 0
    got = {(row["problem_id"], row["seed"]): row["token_ids"] for row in rows}
    naturals = 0
    for name, row, natural in stored(done):
        answer = list(natural[0]["token_ids"]) if natural else []
        assert got.pop(name) == row["prompt_ids"] + row["trace_ids"] + answer
        naturals += bool(natural)
    assert got == {}
    assert 0 < naturals < len(rows), "both kinds must be there, or this test shows nothing"
    assert {row["benchmark"] for row in rows} == {"first"}
    assert [(row["problem_id"], row["seed"]) for row in rows] == [(f"mixed-00{n}", s) for n in range(4) for s in (0, 1)]


def test_calibration_reads_the_traces_token_for_token(done: TinySweep) -> None:
    _, rows = export(done)
    total = sum(len(row["token_ids"]) for row in rows)
    tokens = 24
    spec = CalibrationSpec(str(done.folder / "out" / "traces.jsonl"), samples=total // tokens, tokens=tokens)
    stream = load_windows(spec, Checkpoint.open(TINY / "model")).reshape(-1).tolist()
    left = [row["token_ids"] for row in rows]
    while len(stream) >= max(map(len, left)):  # the windows are the rows, whole, one after another, in a drawn order
        (first,) = {tuple(ids) for ids in left if stream[: len(ids)] == ids}
        left.remove(list(first))
        stream = stream[len(first) :]
    assert len(left) <= 2


def test_limit_cuts_traces_and_keeps_only_answers_that_came_before_it(done: TinySweep) -> None:
    limit = sorted(len(row["trace_ids"]) for row in done.rows())[3]
    _, rows = export(done, "--limit", str(limit))
    got = {(row["problem_id"], row["seed"]): row["token_ids"] for row in rows}
    cut = 0
    for name, row, natural in stored(done):
        if len(row["trace_ids"]) > limit:
            assert got[name] == row["prompt_ids"] + row["trace_ids"][:limit]
            cut += 1
        elif natural:
            assert got[name][-len(natural[0]["token_ids"]) :] == list(natural[0]["token_ids"])
    assert 0 < cut < len(rows)


def test_s1s_answers_follow_the_text_that_the_budget_put_there(sweep: TinySweep) -> None:
    sweep.budget = {"mode": "s1-legacy"}
    assert sweep.run() == "done"
    _, rows = export(sweep)
    tokenizer = ChatTokenizer.load(TINY / "model")
    texts = {(row["problem_id"], row["seed"]): tokenizer.decode(row["token_ids"]) for row in rows}
    naturals = [(name, natural[0]["text"]) for name, _, natural in stored(sweep) if natural]
    assert naturals
    for name, answer in naturals:
        thought, _, answered = texts[name].partition("<|im_start|>answer")
        assert thought.count("<|im_start|>think") == 1
        assert answered.startswith(answer)


def test_traces_of_limits_decoded_apart_are_the_longest_ones(done: TinySweep) -> None:
    shared = export(done)[1]
    done.budget["independent_limits"] = True
    assert done.run() == "done"
    assert export(done)[1] == shared


def test_prompt_of_two_benchmarks_is_written_once(sweep: TinySweep) -> None:
    sweep.benchmarks = {"first": range(3), "second": range(2, 4)}
    assert sweep.run() == "done"
    _, rows = export(sweep)
    assert [row["problem_id"] for row in rows if row["seed"] == 0] == [f"mixed-00{n}" for n in range(4)]


def test_pruned_variant_is_exported_by_its_label(sweep: TinySweep) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert sweep.run() == "done"
    dense, pruned = export(sweep)[1], export(sweep, "--variant", "magnitude + uniform at 0.5")[1]
    assert len(pruned) == len(dense) == 8
    assert pruned != dense
    assert not np.array_equal(pruned[0]["token_ids"], dense[0]["token_ids"])


REFUSED = {
    "no traces": ((), "has no traces of .*: dense'.*orchestrator.sweep"),
    "unknown variant": (("--variant", "dens"), "no such variant. Did you mean 'dense'"),
    "limit of nothing": (("--limit", "0"), "--limit 0: a limit counts thinking tokens; give at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_writes_nothing(
    case: str, sweep: TinySweep, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options, message = REFUSED[case]
    assert export(sweep, *options) == (2, [])
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert re.search(message, said)
    assert not (tmp_path / "out").exists()


def test_label_that_two_models_have_must_name_its_model(done: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    done.resolve_grid()
    other = done.folder / "other"
    shutil.copytree(TINY / "model", other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    file, output = done.folder / "grid.yaml", done.folder / "traces.jsonl"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"models": [str(TINY / "model"), str(other)]}))
    command = ["export", str(file), "--output", str(output)]
    assert main(command) == 2
    assert f"--variant 'dense': several models have this variant; name one of '{TINY}" in capsys.readouterr().err
    assert main([*command, "--variant", f"{TINY / 'model'}: dense"]) == 0
    assert len(output.read_text().splitlines()) == 8


def test_output_that_cannot_be_written_is_named(done: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    (done.folder / "out").write_text("a folder cannot be here")
    command = ["export", str(done.write_grid()), "--output", str(done.folder / "out" / "traces.jsonl")]
    assert main(command) == 2
    assert "traces.jsonl: cannot be written" in capsys.readouterr().err
