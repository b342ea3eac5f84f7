"""The worker that prunes: each patch is in the store when it is told, and what cannot be pruned is bad input with its
cause, while the worker goes on."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from orchestrator.store.store import Store
from pruning.model.checkpoint import Checkpoint
from pruning.spec import CalibrationSpec, PruneSpec
from tests.pruning.conftest import make_checkpoint
from tests.support import ROOT
from tests.support.checkpoints import edited_checkpoint, halved
from workers.failure import FailureKind
from workers.messages import PatchFailed, PatchMade, PatchRequest, PruneTask, Report, TaskEnded, TaskFailed
from workers.prune_worker import PruneWorker
from workers.worker import Inbox

MODEL = ROOT / "examples" / "tiny" / "model"
MAGNITUDE = PruneSpec("magnitude", sparsity=0.2)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PruneWorker:
    """It makes its patches in the machine's temporary folder, which is `temporary` here."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return PruneWorker("pruner", Store.open(str(tmp_path / "store")), tmp_path / "scratch")


def task(*specs: PruneSpec, model: Path = MODEL) -> PruneTask:
    return PruneTask(
        "task", str(model), tuple(PatchRequest(f"{n:020}", spec, {"n": n}) for n, spec in enumerate(specs))
    )


def outcome(worker: PruneWorker, given: PruneTask) -> Report:
    """The report that decides, of a task of one patch."""
    *_, last = [report for report in worker.run(given, Inbox()) if not isinstance(report, TaskEnded)]
    return last


@pytest.mark.parametrize(
    "row",
    [
        {"text": None},
        {"messages": ["1+1"]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        {"token_ids": [1, None]},
    ],
)
def test_malformed_calibration_data_is_bad_input_and_the_worker_goes_on(
    worker: PruneWorker, tmp_path: Path, row: dict[str, object]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    spec = PruneSpec("wanda", sparsity=0.2, calibration=CalibrationSpec(str(file), samples=1, tokens=8))
    failed = outcome(worker, task(spec))
    assert isinstance(failed, TaskFailed)
    assert failed.failure.kind is FailureKind.BAD_INPUT
    assert f"{file}" in failed.failure.cause
    assert "line 1" in failed.failure.cause
    assert isinstance(outcome(worker, task(MAGNITUDE)), PatchMade)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_checkpoint_without_its_biases_is_bad_input(worker: PruneWorker, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "qwen2", "qwen2")
    file = model / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if not name.endswith(".bias")}, file)
    failed = outcome(worker, task(MAGNITUDE, model=model))
    assert isinstance(failed, TaskFailed)
    assert failed.failure.kind is FailureKind.BAD_INPUT
    assert "q_proj.bias" in failed.failure.cause or "k_proj.bias" in failed.failure.cause


def test_patch_that_is_stored_is_not_made_again(worker: PruneWorker, tmp_path: Path) -> None:
    first = outcome(worker, task(MAGNITUDE))
    assert isinstance(first, PatchMade)
    again = outcome(worker, task(MAGNITUDE, model=tmp_path / "no model here"))
    assert isinstance(again, PatchMade)
    assert again.sparsity == first.sparsity


@pytest.fixture
def windows(tmp_path: Path) -> CalibrationSpec:
    file = tmp_path / "windows.npy"
    np.save(file, np.random.default_rng(0).integers(0, 20, (4, 16)))
    return CalibrationSpec(str(file))


def owl(windows: CalibrationSpec, *sparsities: float) -> tuple[PruneSpec, ...]:
    return tuple(PruneSpec("magnitude", "owl", sparsity, calibration=windows) for sparsity in sparsities)


def test_each_patch_of_a_task_is_in_the_store_when_it_is_told_and_nowhere_else(
    worker: PruneWorker, windows: CalibrationSpec, tmp_path: Path
) -> None:
    store, told = Store.open(str(tmp_path / "store")), []
    for report in worker.run(task(*owl(windows, 0.2, 0.3, 0.4)), Inbox()):
        if isinstance(report, PatchMade):
            told.append(report.patch_id)
            assert store.patch_ids() == set(told), "no other is, yet"
            kept = list((tmp_path / "temporary").rglob("manifest.json"))
            assert kept == [], "it takes no room on this machine any more"
    assert isinstance(report, TaskEnded)
    assert len(told) == 3
    assert list((tmp_path / "temporary").iterdir()) == []


def test_patch_that_cannot_be_made_is_told_and_the_others_of_its_task_are_made(
    worker: PruneWorker, windows: CalibrationSpec, tmp_path: Path
) -> None:
    bad = PruneSpec("shortgpt", blocks=99, calibration=windows)
    first, *made, last = worker.run(task(*owl(windows, 0.2), bad, *owl(windows, 0.4)), Inbox())
    assert isinstance(first, PatchFailed)
    assert first.failure.kind is FailureKind.BAD_INPUT
    assert "cannot remove 99 of 4 blocks" in first.failure.cause
    assert {report.patch_id for report in made if isinstance(report, PatchMade)} == {f"{n:020}" for n in (0, 2)}
    assert isinstance(last, TaskEnded)


def test_patch_whose_data_this_machine_lacks_is_told_and_the_others_are_made(
    worker: PruneWorker, windows: CalibrationSpec, tmp_path: Path
) -> None:
    given = task(*owl(windows, 0.2), *owl(CalibrationSpec(str(tmp_path / "gone.npy")), 0.2))
    elsewhere = replace(given.patches[1], payload={"spec": {"calibration": {"data": "f" * 64}}})
    first, made, last = worker.run(replace(given, patches=(given.patches[0], elsewhere)), Inbox())
    assert isinstance(first, PatchFailed)
    assert (first.patch_id, first.failure.kind) == (elsewhere.patch_id, FailureKind.DATA)
    assert isinstance(made, PatchMade)
    assert isinstance(last, TaskEnded)


def test_patch_whose_checkpoint_this_machine_lacks_is_told_and_the_others_are_made(
    worker: PruneWorker, tmp_path: Path
) -> None:
    theirs = edited_checkpoint(MODEL, tmp_path / "theirs", halved)
    there = PruneSpec("checkpoint", path=str(theirs), label="there")
    gone = PruneSpec("checkpoint", path=str(tmp_path / "gone"), label="gone")
    payload = {"spec": {"path": Checkpoint.open(theirs).digest()}}
    given = task(MAGNITUDE, there, gone)
    named = tuple(replace(one, payload=payload) if one.spec.path else one for one in given.patches)
    told = list(worker.run(replace(given, patches=named), Inbox()))
    made = {report.patch_id: report for report in told if isinstance(report, PatchMade)}
    (failed,) = (report for report in told if isinstance(report, PatchFailed))
    assert made.keys() == {f"{n:020}" for n in (0, 1)}
    assert made[f"{1:020}"].sparsity == pytest.approx(0.5, abs=0.01)
    assert (failed.patch_id, failed.failure.kind) == (f"{2:020}", FailureKind.DATA)
    assert f"{tmp_path / 'gone'}: no such folder" in failed.failure.cause
    assert isinstance(told[-1], TaskEnded)


def test_worker_that_is_asked_to_close_finishes_the_patch_in_the_making_and_no_other(
    worker: PruneWorker, windows: CalibrationSpec, tmp_path: Path
) -> None:
    inbox = Inbox()
    reports = worker.run(task(*owl(windows, 0.2, 0.3, 0.4)), inbox)
    made = next(reports)
    assert isinstance(made, PatchMade)
    inbox.close()
    assert [type(report) for report in reports] == [TaskEnded]
    assert Store.open(str(tmp_path / "store")).patch_ids() == {made.patch_id}
