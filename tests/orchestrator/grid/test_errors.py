"""Bad input, before anything starts: one message with the location, the rule and the remedy, and exit status 2."""

import re
from pathlib import Path

import pytest

from orchestrator.sweep import main
from tests.support import ROOT
from tests.support.grids import TINY, edited

MIXED = "examples/tiny/chain-mixed.jsonl"
BAD = {
    "unknown key": (
        edited(("token_limits:", "token_limit:")),
        r":\d+: token_limit: unknown key\. Did you mean 'token_limits'",
    ),
    "unknown nested key": (
        edited(("answer_tokens", "answer_token")),
        r":\d+: budget.answer_token: unknown key\. Did you mean 'answer_tokens'",
    ),
    "unknown axis": (
        edited(("sparsity: [0.2, 0.5]", "sparcity: [0.2, 0.5]")),
        r":\d+: variants\[1\].sparcity: unknown key\. Did you mean 'sparsity'",
    ),
    "wrong type": (edited(("[8, 16, 32, 64, 128]", "[8, sixteen]")), r":\d+: token_limits\[1\]: .*integer.*'sixteen'"),
    "required key": (edited(("name: tiny\n", "")), r": name: this key is required"),
    "unknown method": (edited(("wanda]", "wandaa]")), r":\d+: variants\[1\]: method: 'wandaa' is unknown.*wanda"),
    "sparsity of one": (edited(("[0.2, 0.5]", "[0.2, 1.0]")), r":\d+: variants\[1\]: sparsity: .*\[0, 1\).*1\.0"),
    "negative sparsity": (edited(("[0.2, 0.5]", "[-0.2]")), r":\d+: variants\[1\]: sparsity: .*\[0, 1\)"),
    "sparsity of dense": (
        edited(("{method: dense}", "{method: dense, sparsity: 0.2}")),
        r":\d+: variants\[0\]: sparsity: dense has no sparsity",
    ),
    "blocks of wanda": (
        edited(("sparsity: [0.2, 0.5]", "blocks: 1, sparsity: 0.2")),
        r":\d+: variants\[1\]: blocks: only shortgpt",
    ),
    "checkpoint without a path": (
        edited(("{method: dense}", "{method: checkpoint, label: mine}")),
        r":\d+: variants\[0\]: path: checkpoint makes a variant of a checkpoint of yours; give its folder or hub id",
    ),
    "label of a method": (
        edited(("{method: dense}", "{method: dense, label: mine}")),
        r":\d+: variants\[0\]: label: only checkpoint reads a checkpoint; dense does not\. Drop 'label'",
    ),
    "label that is taken": (
        edited(("{method: dense}", "{method: dense}\n  - {method: checkpoint, path: a, label: dense}")),
        r":8: variants\[1\]: 'dense' is what the variant on line 7 is called, too; give the checkpoint another label",
    ),
    "label of two checkpoints": (
        edited(("{method: dense}", "{method: checkpoint, path: [a, b], label: mine}")),
        r":7: variants\[0\]: 'mine' is what the variant on line 7 is called, too",
    ),
    "checkpoint under two labels": (
        edited(("{method: dense}", "{method: checkpoint, path: a, label: [one, two]}")),
        r":7: variants\[0\]: the same variant is already on line 7",
    ),
    "same variant twice": (
        edited(("  - {method: dense}\n", "  - {method: dense}\n  - {method: dense}\n")),
        r":8: variants\[1\]: the same variant is already on line 7",
    ),
    "same limit twice": (edited(("[8, 16,", "[8, 8, 16,")), r":\d+: token_limits.*twice"),
    "no limits": (edited(("[8, 16, 32, 64, 128]", "[]")), r":\d+: token_limits: .*at least 1"),
    "no values": (edited(("sparsity: [0.2, 0.5]", "sparsity: []")), r":\d+: variants\[1\]\.sparsity: an empty list"),
    "key twice": (TINY + "name: again\n", r":\d+: the key name appears twice, first on line \d+"),
    "missing model": (
        edited(("[examples/tiny/model]", "[examples/tiny/modle]")),
        r":\d+: models\[0\]: model 'examples/tiny/modle': no such folder; give a local checkpoint folder or a hub id",
    ),
    "limit above the context": (
        edited(("64, 128]", "64, 1000]")),
        r":\d+: token_limits\[4\]: limit 1000 does not fit.*context of 512.*use limits up to \d+",
    ),
    "missing benchmark": (edited(("chain-mixed.jsonl", "chain-mixd.jsonl")), r":\d+: benchmarks\[0\]: .*chain-mixd"),
    "missing calibration file": (
        edited(("calibration.jsonl,", "calibratoin.jsonl,")),
        r":\d+: calibration file examples/tiny/calibratoin.jsonl: no such file",
    ),
    "unknown key of a benchmark": (
        edited((MIXED, "{name: " + MIXED + ", frist: 5}")),
        r":\d+: benchmarks\[0\].frist: unknown key\. Did you mean 'first'",
    ),
    "part of nothing": (
        edited((MIXED, "{name: " + MIXED + ", first: 0}")),
        r":\d+: benchmarks\[0\]: first is 0, but a part has at least one problem",
    ),
    "part larger than the whole": (
        edited((MIXED, "{name: " + MIXED + ", sample: 101}")),
        r":\d+: benchmarks\[0\]: sample is 101, but chain-mixed has 100 problems\. Use at most 100",
    ),
    "same part twice": (
        edited((MIXED, "{name: a.jsonl, first: 5}\n  - {name: a.jsonl, first: 5}")),
        r":\d+: benchmarks\[1\]: 'a.jsonl first 5' appears twice; list it once",
    ),
    "same benchmark in two spellings": (
        edited((MIXED, f"{MIXED}\n  - ./{MIXED}")),
        r":\d+: benchmarks\[1\]: two benchmarks are called 'chain-mixed'; list one of them, or rename",
    ),
    "greedy with seeds": (edited(("seeds: [0]", "seeds: [0, 1]")), r":\d+: sampling: .*greedy"),
    "unknown budget": (
        edited(("native-strict", "native-strikt")),
        r":\d+: budget: budget.mode is 'native-strikt'.*native-strict",
    ),
    "engines of zero": (
        edited(("engines: 1", "engines: 0")),
        r":\d+: runtime.engines: .*greater than or equal to 1, not 0",
    ),
    "unknown grader": (edited(("engines: 1", "grader: standart")), r":\d+: runtime.grader: .*standart.*standard"),
    "not YAML": ("name: [tiny\n", r":\d+: not valid YAML"),
    "a list": ("- name\n", r":1: a grid is a mapping"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_grid_is_one_clear_message_and_status_2(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = BAD[fault]
    monkeypatch.chdir(ROOT)
    grid = tmp_path / "grid.yaml"
    grid.write_text(text, encoding="utf-8")
    status = main([str(grid), "--store", str(tmp_path / "store")])
    message = capsys.readouterr().err.strip()
    assert status == 2
    assert message.startswith(f"error: {grid}:")
    assert re.search(expected, message), message
    assert "Traceback" not in message
    assert not (tmp_path / "store").exists(), "nothing was started"


def test_missing_grid_names_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "gird.yaml")]) == 2
    assert "no such file; give the path of a grid, such as examples/tiny/grid.yaml" in capsys.readouterr().err


def test_store_that_cannot_be_written_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "file").write_text("in the way")
    status = main(["examples/tiny/grid.yaml", "--store", str(tmp_path / "file" / "store")])
    assert status == 2
    assert re.search(
        r"error: store .*/file/store: .* cannot be written \(refused\): .*; give a folder that can be written",
        capsys.readouterr().err,
    )


def test_several_faults_are_told_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(edited(("name: tiny", "nam: tiny"), ("engines: 1", "engine: 1")), encoding="utf-8")
    assert main([str(grid)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3  # the unknown key, the key it should have been, and the other unknown key
    assert all(line.startswith("error: ") for line in lines)
