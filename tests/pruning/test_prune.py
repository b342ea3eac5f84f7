"""Pruning jobs: those that run together give what each gives alone, and errors leave nothing behind."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from pruning.patch.patch import Patch
from pruning.prune import PruneJob, prune, prune_each, prune_many
from pruning.spec import CalibrationSpec, PruneSpec
from tests.pruning.conftest import make_checkpoint

CONTENT = ("spec", "tensors", "layers", "files", "canary", "kept_layers", "evidence", "calibration")


def content(manifest):
    return {name: getattr(manifest, name) for name in CONTENT}


def test_many_jobs_give_what_each_gives_alone(checkpoints, calibration, tmp_path):
    specs = [
        PruneSpec("dense"),
        PruneSpec("magnitude", "owl", 0.2, calibration=calibration),
        PruneSpec("magnitude", "owl", 0.4, owl_m=3.0, calibration=calibration),
        PruneSpec("wanda", sparsity=0.2, propagate="dense", calibration=calibration),
        PruneSpec("wanda", "owl", 0.2, calibration=calibration),
        PruneSpec("wanda", sparsity=0.2, group="model", propagate="dense", calibration=calibration),
        PruneSpec("sparsegpt", sparsity=0.2, propagate="dense", calibration=calibration),
        PruneSpec("shortgpt", blocks=1, calibration=calibration),
        PruneSpec("shortgpt", blocks=2, calibration=calibration),
    ]
    together = prune_many(
        checkpoints["mistral"], [PruneJob(spec, tmp_path / f"many{i}", {"n": i}) for i, spec in enumerate(specs)]
    )
    for i, spec in enumerate(specs):
        alone = prune(checkpoints["mistral"], spec, tmp_path / f"one{i}", payload={"n": i})
        assert content(alone) == content(together[i])
        assert Patch.open(tmp_path / f"many{i}").manifest == together[i]


def test_a_committed_patch_is_not_overwritten(checkpoints, tmp_path):
    spec = PruneSpec("magnitude", sparsity=0.2)
    prune(checkpoints["llama"], spec, tmp_path / "patch", payload={})
    with pytest.raises(ValueError, match="already exists"):
        prune(checkpoints["llama"], spec, tmp_path / "patch", payload={})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PruneSpec("magnitude", pattern="2:4"), r"down_proj.weight has 77 inputs, not a multiple of 4"),
        (PruneSpec("shortgpt", blocks=4), "cannot remove 4 of 4 blocks"),
        (PruneSpec("shortgpt", blocks=9), "cannot remove 9 of 4 blocks"),
    ],
)
def test_what_this_checkpoint_cannot_give_is_refused_before_any_work(checkpoints, calibration, tmp_path, spec, message):
    from dataclasses import replace

    said: list[str] = []
    data = calibration if spec.method == "shortgpt" else None
    with pytest.raises(ValueError, match=message):
        prune(checkpoints["llama"], replace(spec, calibration=data), tmp_path / "p", payload={}, progress=said.append)
    assert said == []


def in_file(manifest):
    """What manifest.json holds of a patch, but for what it took to make."""
    return {name: value for name, value in asdict(manifest).items() if name not in ("seconds", "peak_memory_bytes")}


def test_patches_made_together_are_the_bytes_of_those_made_alone(checkpoints, calibration, tmp_path, monkeypatch):
    np.save(tmp_path / "other.npy", np.random.default_rng(1).integers(0, 97, (4, 24)))
    layerif = {"propagate": "dense", "influence_validation": CalibrationSpec(str(tmp_path / "other.npy"))}
    rows = [("magnitude", "owl", {}), ("wanda", "owl", {}), ("wanda", "layerif", layerif), ("sparsegpt", "uniform", {})]
    specs = [
        PruneSpec(method, allocator, sparsity, calibration=calibration, **knobs)
        for method, allocator, knobs in rows
        for sparsity in (0.2, 0.5)
    ]
    specs += [PruneSpec("magnitude", "alphapruning", 0.3), PruneSpec("shortgpt", blocks=1, calibration=calibration)]
    monkeypatch.setenv("PRUNESWEEP_CACHE", str(tmp_path / "cache of those together"))
    jobs = [PruneJob(spec, tmp_path / f"together{i}", {}) for i, spec in enumerate(specs)]
    together = dict(zip(range(len(specs)), prune_many(checkpoints["qwen3"], jobs), strict=True))
    for i, spec in enumerate(specs):
        monkeypatch.setenv("PRUNESWEEP_CACHE", str(tmp_path / f"cache of {i}"))
        alone = prune(checkpoints["qwen3"], spec, tmp_path / f"alone{i}", payload={})
        assert in_file(alone) == in_file(together[i])
        for file in alone.files:
            assert (tmp_path / f"alone{i}" / file).read_bytes() == (tmp_path / f"together{i}" / file).read_bytes()


def test_each_patch_is_there_when_it_is_told_and_the_rest_leaves_nothing(checkpoints, calibration, tmp_path):
    specs = [
        PruneSpec("wanda", sparsity=0.2, calibration=calibration),
        PruneSpec("magnitude", "owl", 0.2, calibration=calibration),
        PruneSpec("magnitude", "owl", 0.4, calibration=calibration),
    ]
    jobs = [PruneJob(spec, tmp_path / f"patch{i}", {}) for i, spec in enumerate(specs)]
    results = prune_each(checkpoints["llama"], jobs)
    job, manifest = next(results)
    assert job is jobs[1], "one that needs a pass of its own comes after those that share"
    assert Patch.open(job.destination).manifest == manifest
    assert not any(other.destination.exists() for other in jobs if other is not job)
    results.close()
    assert list(tmp_path.iterdir()) == [job.destination]


def test_job_that_cannot_work_takes_no_other_along(calibration, tmp_path):
    model = make_checkpoint(tmp_path / "model", "llama", torch.bfloat16)  # whose rounding makes weights equal
    for taken in ("p2", "p4"):
        (tmp_path / taken).mkdir()
    specs = [
        PruneSpec("shortgpt", blocks=4, calibration=calibration),
        PruneSpec("magnitude", sparsity=0.5, tie_limit=0.0),
        PruneSpec("magnitude", sparsity=0.5),
        PruneSpec("magnitude", sparsity=0.4),
        PruneSpec("ria", sparsity=0.4, calibration=calibration),
        PruneSpec("wanda", sparsity=0.4, calibration=calibration),
    ]
    jobs = [PruneJob(spec, tmp_path / f"p{i}", {}) for i, spec in enumerate(specs)]
    results = {job.destination.name: result for job, result in prune_each(model, jobs)}
    told = {name: str(result) for name, result in results.items() if isinstance(result, ValueError)}
    assert sorted(told) == ["p0", "p1", "p2", "p4"]
    assert "cannot remove 4 of 4 blocks" in told["p0"]
    assert "would fall where" in told["p1"]
    assert "already exists" in told["p2"]
    assert "already exists" in told["p4"]
    for name in ("p3", "p5"):
        assert Patch.open(tmp_path / name).manifest == results[name]
    assert {entry.name for entry in tmp_path.iterdir()} == {"model", "p2", "p3", "p4", "p5"}
