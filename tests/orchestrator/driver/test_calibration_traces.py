"""Calibration on the model's own traces: drawn first, kept once, and in every name by their content."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.grid.errors import InputError
from orchestrator.plan.resolved_grid import find_variant
from pruning.model.calibration import load_windows
from pruning.model.checkpoint import Checkpoint
from pruning.patch.manifest import read_manifest
from pruning.spec import CalibrationSpec
from tests.support.builders import PROBLEMS as ALL_PROBLEMS
from tests.support.builders import TINY, TinySweep

FILE = {"data": str(TINY / "calibration.jsonl"), "samples": 4, "tokens": 32}


@pytest.fixture
def sweep(sweep: TinySweep) -> TinySweep:
    """Wanda calibrated on a file, and on the traces of twelve problems that are not evaluated."""
    problems = sweep.folder / "others.jsonl"
    problems.write_text("".join(json.dumps(ALL_PROBLEMS[number]) + "\n" for number in range(10, 22)))
    own = {"data": "own-traces", "problems": str(problems), "samples": 4, "tokens": 32, "temperature": 0.5}
    sweep.variants = [
        {"method": "dense"},
        {"method": "magnitude", "sparsity": 0.5},
        {"method": "wanda", "sparsity": 0.5},
    ]
    sweep.calibration = [FILE, own]
    return sweep


def kept(sweep: TinySweep) -> list[dict[str, Any]]:
    """The rows of the one file of traces."""
    (file,) = Path(sweep.store.root, "traces").iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_variants_wait_for_the_traces_and_are_complete_with_them(sweep: TinySweep) -> None:
    before = sweep.resolve_grid()
    assert [one.label for one in before.awaiting] == ["wanda + uniform at 0.5, own-traces"]
    with pytest.raises(InputError, match="the traces that it is calibrated on are not made"):
        find_variant(before, "wanda + uniform at 0.5, own-traces", "WHAT")
    assert sweep.run() == "done"
    assert not sweep.plan().nothing_owed
    assert sweep.make_traces() == "done"
    plan = sweep.plan()
    assert plan.resolved.awaiting == ()
    assert [variant.label for variant in plan.patches] == ["wanda + uniform at 0.5, own-traces"]
    assert sweep.run() == "done"
    assert sweep.plan().nothing_owed


def test_patch_is_pruned_on_exactly_what_the_dense_model_read_and_wrote(sweep: TinySweep) -> None:
    assert sweep.make_traces() == "done"
    rows = kept(sweep)
    assert sum(len(row["token_ids"]) for row in rows) >= 4 * 32
    assert sum(len(row["token_ids"]) for row in rows[:-1]) < 4 * 32, "no more traces than the windows need"
    drawn = {(row["problem_id"], row["seed"]): row for row in sweep.rows()}
    for row in rows:
        stored = drawn[row["problem_id"], row["seed"]]
        assert row["token_ids"][: len(stored["prompt_ids"])] == stored["prompt_ids"]
        thought = row["token_ids"][len(stored["prompt_ids"]) :]
        assert thought[: len(stored["trace_ids"])] == stored["trace_ids"]
    assert sweep.run() == "done"
    (variant,) = [one for one in sweep.resolve_grid().variants if one.label.endswith("own-traces")]
    (file,) = Path(sweep.store.root, "traces").iterdir()
    windows = load_windows(CalibrationSpec(str(file), 4, 32, windows="packed"), Checkpoint.open(TINY / "model"))
    manifest = read_manifest(Path(sweep.store.root, "patches", variant.patch_id))
    assert windows.shape == (4, 32)
    assert manifest.payload["spec"]["calibration"]["data"] == sweep.store.traces_digest(file.stem)


def test_seeds_are_added_until_the_windows_are_full(sweep: TinySweep) -> None:
    assert sweep.calibration is not None
    sweep.calibration[1] |= {"samples": 40, "seed": 7}
    assert sweep.make_traces() == "done"
    rows = kept(sweep)
    assert [row["seed"] for row in rows] == sorted(row["seed"] for row in rows)
    assert rows[0]["seed"] == 7
    assert rows[-1]["seed"] > 7
    assert sum(len(row["token_ids"]) for row in rows) >= 40 * 32


def test_traces_are_drawn_once_and_reused(sweep: TinySweep) -> None:
    assert sweep.make_traces(stop_after=2) == "stopped by test"
    assert sweep.resolve_grid().awaiting, "a stopped sweep keeps no half of the traces"
    begun = len(sweep.rows())
    assert sweep.make_traces() == "done"
    assert 0 < begun < len(sweep.rows()) == 12
    names = {variant.patch_id for variant in sweep.resolve_grid().variants}
    assert sweep.make_traces() == "done"
    assert len(sweep.rows()) == 12
    assert sweep.calibration is not None
    sweep.calibration[1] |= {"tokens": 16, "limit": 32}  # half of the same draws
    assert sweep.make_traces() == "done"
    assert len(sweep.rows()) == 12
    assert {variant.patch_id for variant in sweep.resolve_grid().variants} != names


def test_other_traces_are_another_patch(sweep: TinySweep, tmp_path: Path) -> None:
    assert sweep.make_traces() == "done"
    names = {variant.patch_id for variant in sweep.resolve_grid().variants}
    (file,) = Path(sweep.store.root, "traces").iterdir()
    rows = kept(sweep)
    rows[0]["token_ids"][0] += 1
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len({variant.patch_id for variant in sweep.resolve_grid().variants} - names) == 1


def test_gradients_are_validated_on_other_traces_than_they_are_trained_on(sweep: TinySweep) -> None:
    sweep.variants = [{"method": "wanda", "allocator": ["owl", "layerif"], "sparsity": 0.5}]
    assert sweep.calibration is not None
    del sweep.calibration[0]
    assert sorted(request.tokens for request in sweep.resolve_grid().requests) == [128, 256]
    assert sweep.make_traces() == "done"
    assert sweep.run() == "done"
    assert sweep.store.patch_ids() >= {variant.patch_id for variant in sweep.resolve_grid().variants}


def test_problems_that_are_evaluated_are_refused(sweep: TinySweep) -> None:
    assert sweep.calibration is not None
    sweep.calibration[1]["problems"] = str(sweep.folder / "first.jsonl")
    with pytest.raises(InputError, match=r"calibration.problems: 4 problems of .*first.jsonl are evaluated as well"):
        sweep.resolve_grid()


def test_greedy_traces_that_are_too_few_are_told_with_the_remedy_and_stop_nothing_else(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.calibration is not None
    sweep.calibration[1] |= {"samples": 100, "temperature": 0.0}
    assert sweep.make_traces() == "done"
    reason = capsys.readouterr().err
    assert "of the 3,200 tokens that wanda + uniform at 0.5, own-traces is calibrated on" in reason
    assert "give more problems, a temperature above 0, or fewer samples" in reason
    assert sweep.run() == "done"
    assert len(sweep.resolve_grid().variants) == 3
    assert sweep.resolve_grid().awaiting


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"problems": None}, "own-traces needs problems for the model to think about"),
        ({"limit": 0}, "calibration.limit: 0 counts thinking tokens"),
        ({"temperature": -1.0}, "calibration.temperature: -1.0 is negative"),
        ({"data": "c4"}, "calibration.problems: only own-traces has it, and the data is c4"),
    ],
)
def test_settings_that_cannot_be_are_refused(sweep: TinySweep, change: dict[str, Any], complaint: str) -> None:
    assert sweep.calibration is not None
    sweep.calibration[1] |= change
    with pytest.raises(InputError, match=complaint):
        sweep.resolve_grid()
