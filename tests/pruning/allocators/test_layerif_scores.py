"""Influence scores against gradients of the whole model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.allocators.layerif_scores import scores_of
from pruning.model.architecture import PARTS
from pruning.model.checkpoint import Checkpoint
from pruning.model.gradients import GradientSweep
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.support import reference as naive

KINDS = ("qwen2", "qwen3", "llama", "mistral")
SPARSITY = 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_influence_is_the_inner_product_of_whole_model_gradients(checkpoints, windows_file, tmp_path, kind):
    from pruning.spec import CalibrationSpec

    rows = np.random.default_rng(7).integers(0, 97, (4, 20))
    np.save(tmp_path / "validation.npy", rows)
    spec = PruneSpec(
        "magnitude",
        "layerif",
        SPARSITY,
        layerif_aggregate="sum",
        influence_train=CalibrationSpec(str(windows_file)),
        influence_validation=CalibrationSpec(str(tmp_path / "validation.npy")),
    )
    manifest = prune(checkpoints[kind], spec, tmp_path / "patch", payload={})
    model = naive.whole_model(checkpoints[kind])
    train = [naive.gradients(model, window) for window in np.load(windows_file)]
    validation = [naive.gradients(model, window) for window in rows]
    for part, prefix in (("attention", "self_attn"), ("mlp", "mlp")):
        for layer in range(4):
            members = [key for key in naive.keys(model) if key[0] == layer and key[1].startswith(prefix)]
            expected = sum(
                float((np.mean([v[key] for v in validation], axis=0) * g[key]).sum()) for g in train for key in members
            )
            assert manifest.evidence[f"influence_{part}"][layer] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_datainf_equals_its_closed_form_on_whole_gradients(checkpoints, windows_file, tmp_path):
    from pruning.spec import CalibrationSpec

    rows = np.random.default_rng(7).integers(0, 97, (3, 20))
    np.save(tmp_path / "validation.npy", rows)
    spec = PruneSpec(
        "magnitude",
        "layerif",
        SPARSITY,
        layerif_units="blocks",
        layerif_sign="tracin",
        layerif_aggregate="sum",
        layerif_hessian="datainf",
        influence_train=CalibrationSpec(str(windows_file)),
        influence_validation=CalibrationSpec(str(tmp_path / "validation.npy")),
    )
    manifest = prune(checkpoints["qwen3"], spec, tmp_path / "patch", payload={})
    model = naive.whole_model(checkpoints["qwen3"])
    train = [naive.gradients(model, window) for window in np.load(windows_file)]
    validation = [naive.gradients(model, window) for window in rows]
    expected = np.zeros(4)
    for key in naive.keys(model):
        v = np.mean([each[key] for each in validation], axis=0)
        gradients = [each[key] for each in train]
        damping = 0.1 * np.mean([(g**2).mean() for g in gradients])
        product = sum(v - (v * g).sum() / (damping + (g**2).sum()) * g for g in gradients) / (len(train) * damping)
        expected[key[0]] += sum((product * g).sum() for g in gradients)
    np.testing.assert_allclose(manifest.evidence["influence"], expected, rtol=1e-3)


@pytest.mark.parametrize("hessian", ["identity", "datainf"])
def test_scores_do_not_depend_on_how_many_samples_a_chunk_has(checkpoints, hessian):
    rows = np.random.default_rng(7).integers(0, 97, (9, 20))
    base = Checkpoint.open(checkpoints["qwen3"])

    def scores(boundary_bytes):
        sweep = GradientSweep(base, torch.float32, "cpu", boundary_bytes)
        return scores_of(sweep, hessian, rows[:5], rows[5:], said.append).parts

    said: list[str] = []
    whole = scores(1 << 30)
    assert said == (["gradients of sample 4/4"] + ["gradients of sample 5/5"] * (1 if hessian == "identity" else 4))
    said.clear()
    apart = scores(1)
    assert len(said) == (9 if hessian == "identity" else 24)
    for part in PARTS:
        np.testing.assert_allclose(apart[part], whole[part], rtol=1e-4, atol=1e-9)
