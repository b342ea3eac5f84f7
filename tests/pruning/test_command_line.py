"""`python -m pruning` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pruning.__main__ import device_for, main
from pruning.model.checkpoint import Checkpoint
from pruning.patch.manifest import read_manifest
from pruning.patch.patch import Patch
from tests.support import ROOT

TINY = ROOT / "examples" / "tiny"


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pruning", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TINY.parents[1])


def call(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_is_all_of_standard_output_and_both_folders_appear(tmp_path):
    done = run(
        TINY / "model", "--method", "wanda", "--allocator", "owl", "--sparsity", "0.2", "--owl-m", "3",
        "--calibration", TINY / "calibration.jsonl", "--samples", "8", "--tokens", "96",
        "--patch", tmp_path / "patch", "--export", tmp_path / "export", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    manifest = read_manifest(tmp_path / "patch")
    assert report["method"] == "wanda"
    assert report["allocator"] == "owl"
    assert report["sparsity"] == {"requested": 0.2, "realised": manifest.realised}
    assert report["removed_layers"] == []
    assert [layer["index"] for layer in report["layers"]] == list(range(len(manifest.layers)))
    assert set(report["layers"][0]) == {"index", "requested", "realised", "modules"}
    assert report["patch"] == str(tmp_path / "patch")
    assert report["export"] == str(tmp_path / "export")
    assert report["seconds"] > 0
    assert report["peak_memory_bytes"] > 0
    assert "layer 1/" in done.stderr
    assert Checkpoint.open(tmp_path / "export").tensor_digests() == manifest.tensors
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "export" / name).read_bytes() == (TINY / "model" / name).read_bytes()


def test_shortgpt_reports_what_it_removed(tmp_path, capsys):
    code, out, _ = call(
        capsys, TINY / "model", "--method", "shortgpt", "--blocks", "1", "--calibration", TINY / "calibration.jsonl",
        "--samples", "8", "--tokens", "96", "--patch", tmp_path / "patch", "--json",
    )  # fmt: skip
    assert code == 0
    report = json.loads(out)
    kept = Patch.open(tmp_path / "patch").manifest.kept_layers
    assert sorted([*report["removed_layers"], *kept]) == list(range(len(kept) + 1))


def test_checkpoint_of_ones_own_becomes_a_patch_and_comes_back(tmp_path, capsys):
    shorten = ("--method", "shortgpt", "--blocks", "1", "--calibration", TINY / "calibration.jsonl", "--samples", "8")
    first = (TINY / "model", *shorten, "--tokens", "96", "--export", tmp_path / "mine", "--json")
    ours = json.loads(call(capsys, *first)[1])
    path = ("--method", "checkpoint", "--path", tmp_path / "mine", "--label", "short")
    code, out, err = call(capsys, TINY / "model", *path, "--patch", tmp_path / "patch", "--json")
    assert code == 0, err
    assert "short: comparing with the base" in err
    report = json.loads(out)
    assert report["removed_layers"] == ours["removed_layers"]
    assert report["sparsity"] == {"requested": 0.25, "realised": 0.25}
    assert read_manifest(tmp_path / "patch").tensors == Checkpoint.open(tmp_path / "mine").tensor_digests()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "wnada", "--sparsity", "0.2"], "Did you mean 'wanda'?"),
        (["--method", "wanda", "--sparsity", "0.2"], "needs calibration data"),
        (["--method", "magnitude", "--sparsity", "1.5"], "sparsity: magnitude needs a fraction"),
        (["--method", "wanda", "--sparsity", "0.2", "--calibration", "gone.jsonl"], "gone.jsonl: no such file"),
        (["--method", "magnitude", "--sparsity", "0.2", "--device", "gpu7"], "device"),
        (["--method", "checkpoint", "--path", "gone"], "gone: no such folder"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(tmp_path, capsys, arguments, message):
    code, out, err = call(capsys, TINY / "model", *arguments, "--patch", tmp_path / "out" / "patch", "--json")
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.rglob("*manifest*")) == []


@pytest.mark.parametrize("row", [{"text": None}, {"messages": [{"role": "system", "content": "1+1"}]}])
def test_calibration_row_that_cannot_be_read_is_one_message_and_exit_2(tmp_path, capsys, row):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(row) + "\n")
    code, _, err = call(
        capsys, TINY / "model", "--method", "wanda", "--sparsity", "0.2", "--calibration", data, "--samples", "1",
        "--tokens", "8", "--patch", tmp_path / "patch",
    )  # fmt: skip
    assert code == 2
    assert err.startswith(f"pruning: {data}")
    assert "line 1: " in err
    assert "correct or remove" in err
    assert err.count("\n") == 1


def test_something_must_be_written(capsys):
    code, _, err = call(capsys, TINY / "model", "--method", "magnitude", "--sparsity", "0.2")
    assert code == 2
    assert "--patch DIR, --export DIR" in err


@pytest.mark.parametrize(
    ("named", "gpu", "device"),
    [(None, True, "cuda"), (None, False, "cpu"), ("cpu", True, "cpu"), ("cuda:1", True, "cuda:1")],
)
def test_a_gpu_is_used_where_there_is_one_unless_a_device_is_named(named, gpu, device):
    assert device_for(named, gpu) == device
