"""The worker that prunes: what cannot be pruned is bad input with its cause, and the worker goes on."""

import json
import tempfile
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from orchestrator.store.store import Store
from pruning.spec import CalibrationSpec, PruneSpec
from tests.pruning.conftest import make_checkpoint
from tests.support import ROOT
from workers.failure import FailureKind
from workers.messages import PatchMade, PruneTask, Report, TaskEnded, TaskFailed
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


def task(spec: PruneSpec, model: Path = MODEL, patch_id: str = "0" * 20) -> PruneTask:
    return PruneTask("task", str(model), spec, patch_id, {})


def outcome(worker: PruneWorker, given: PruneTask) -> Report:
    """The report that decides, of one task."""
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
    failed = outcome(worker, task(MAGNITUDE, model))
    assert isinstance(failed, TaskFailed)
    assert failed.failure.kind is FailureKind.BAD_INPUT
    assert "q_proj.bias" in failed.failure.cause or "k_proj.bias" in failed.failure.cause


def test_patch_that_is_stored_is_not_made_again(worker: PruneWorker, tmp_path: Path) -> None:
    first = outcome(worker, task(MAGNITUDE))
    assert isinstance(first, PatchMade)
    again = outcome(worker, task(MAGNITUDE, tmp_path / "no model here"))
    assert isinstance(again, PatchMade)
    assert again.sparsity == first.sparsity
