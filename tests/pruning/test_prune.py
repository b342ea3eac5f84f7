"""Pruning jobs: those that run together give what each gives alone, and errors leave nothing behind."""

from __future__ import annotations

import pytest

from pruning.patch.patch import Patch
from pruning.prune import PruneJob, prune, prune_many
from pruning.spec import PruneSpec

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
