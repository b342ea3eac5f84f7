"""Each method against its naive whole-model reference, mask for mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.model.checkpoint import Checkpoint
from pruning.patch.patch import Patch
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.support import reference as naive

KINDS = ("qwen2", "qwen3", "llama", "mistral")
SPARSITY = 0.3


def resulting(folder, model_dir) -> dict[naive.Key, np.ndarray]:
    """The linears of base + patch."""
    base = Checkpoint.open(model_dir)
    tensors = {name: tensor.double().numpy() for name, tensor in Patch.open(folder).weights(base)}
    return {
        (layer, name): tensors[f"model.layers.{layer}.{name}.weight"]
        for layer in range(base.num_layers)
        for name in naive.LINEARS
    }


def pruned_weights(checkpoints, kind, spec, tmp_path):
    prune(checkpoints[kind], spec, tmp_path / "patch", payload={})
    return resulting(tmp_path / "patch", checkpoints[kind])


def assert_same_masks(got: dict[naive.Key, np.ndarray], dropped: dict[naive.Key, np.ndarray]) -> None:
    assert got.keys() == dropped.keys()
    for key, weights in got.items():
        np.testing.assert_array_equal(weights == 0, dropped[key], err_msg=str(key))


@pytest.mark.parametrize("selection", ["threshold", "exact"])
@pytest.mark.parametrize("group", ["matrix", "layer", "model", "row"])
def test_magnitude_drops_what_a_full_sort_drops(checkpoints, tmp_path, group, selection):
    spec = PruneSpec("magnitude", sparsity=SPARSITY, group=group, selection=selection)
    got = pruned_weights(checkpoints, "llama", spec, tmp_path)
    model = naive.whole_model(checkpoints["llama"])
    scores = {key: np.abs(naive.weight(model, key)) for key in naive.keys(model)}
    cut = naive.group_exact if selection == "exact" else naive.group_threshold
    if group == "row":
        rows = {key: [row[None] for row in score] for key, score in scores.items()}
        dropped = {
            key: np.concatenate([cut([row], int(row.size * SPARSITY))[0] for row in each]) for key, each in rows.items()
        }
    else:
        groups = {
            "matrix": [[key] for key in scores],
            "layer": [[key for key in scores if key[0] == layer] for layer in range(4)],
            "model": [list(scores)],
        }[group]
        dropped = {}
        for members in groups:
            count = sum(int(scores[key].size * SPARSITY) for key in members)
            if group == "model":
                count = int(sum(scores[key].size for key in members) * SPARSITY)
            dropped |= dict(zip(members, cut([scores[key] for key in members], count), strict=True))
    assert_same_masks(got, dropped)


@pytest.mark.parametrize("kind", KINDS)
def test_wanda_by_rows_sees_pruned_activations(checkpoints, windows_file, calibration, tmp_path, kind):
    got = pruned_weights(checkpoints, kind, PruneSpec("wanda", sparsity=SPARSITY, calibration=calibration), tmp_path)
    dropped, _ = naive.sequential(
        naive.whole_model(checkpoints[kind]),
        np.load(windows_file),
        lambda key, w, x: (naive.rows_exact(naive.wanda_score(w, x), SPARSITY), w),
        pruned=True,
    )
    assert_same_masks(got, dropped)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_wanda_by_matrix_on_dense_activations_as_the_paper_does_with_layerif(
    checkpoints, windows_file, calibration, tmp_path, kind
):
    spec = PruneSpec("wanda", sparsity=SPARSITY, group="matrix", propagate="dense", calibration=calibration)
    got = pruned_weights(checkpoints, kind, spec, tmp_path)

    def decide(key, w, x):
        (dropped,) = naive.group_exact([naive.wanda_score(w, x)], int(w.size * SPARSITY))
        return dropped, w

    model = naive.whole_model(checkpoints[kind])
    dropped, _ = naive.sequential(model, np.load(windows_file), decide, pruned=False)
    assert_same_masks(got, dropped)


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
def test_ria_follows_its_definition(checkpoints, windows_file, calibration, tmp_path, kind):
    got = pruned_weights(checkpoints, kind, PruneSpec("ria", sparsity=SPARSITY, calibration=calibration), tmp_path)

    def decide(key, w, x):
        (dropped,) = naive.group_threshold([naive.ria_score(w, x)], int(w.size * SPARSITY))
        return dropped, w

    model = naive.whole_model(checkpoints[kind])
    dropped, _ = naive.sequential(model, np.load(windows_file), decide, pruned=True)
    assert_same_masks(got, dropped)


@pytest.mark.parametrize("pattern", ["2:4", "1:4"])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "ria"])
def test_pattern_drops_the_smallest_of_each_group(checkpoints, windows_file, calibration, tmp_path, method, pattern):
    spec = PruneSpec(method, pattern=pattern, calibration=calibration if method != "magnitude" else None)
    got = pruned_weights(checkpoints, "qwen2", spec, tmp_path)
    score = {"magnitude": lambda w, x: np.abs(w), "wanda": naive.wanda_score, "ria": naive.ria_score}[method]
    n, m = map(int, pattern.split(":"))
    model = naive.whole_model(checkpoints["qwen2"])
    dropped, _ = naive.sequential(
        model, np.load(windows_file), lambda key, w, x: (naive.n_of_m(score(w, x), n, m), w), pruned=True
    )
    assert_same_masks(got, dropped)


@pytest.mark.parametrize(("kind", "pattern"), [("qwen2", None), ("llama", None), ("qwen3", "2:4"), ("mistral", "1:4")])
def test_sparsegpt_equals_surgery_with_explicit_inverses(
    checkpoints, windows_file, calibration, tmp_path, kind, pattern
):
    spec = PruneSpec(
        "sparsegpt",
        sparsity=None if pattern else SPARSITY,
        pattern=pattern,
        sparsegpt_block=32,
        calibration=calibration,
    )
    got = pruned_weights(checkpoints, kind, spec, tmp_path)
    groups = None if pattern is None else tuple(map(int, pattern.split(":")))
    dropped, updated = naive.sequential(
        naive.whole_model(checkpoints[kind]),
        np.load(windows_file),
        lambda key, w, x: naive.sparsegpt(w, x, SPARSITY, block=32, pattern=groups),
        pruned=True,
    )
    assert_same_masks(got, dropped)
    for key, weights in got.items():
        error = np.linalg.norm(weights - updated[key]) / np.linalg.norm(updated[key])
        assert error < 1e-3, key


@pytest.mark.parametrize("kind", KINDS)
def test_shortgpt_removes_the_blocks_of_least_influence(checkpoints, windows_file, calibration, tmp_path, kind):
    spec = PruneSpec("shortgpt", blocks=2, calibration=calibration)
    manifest = prune(checkpoints[kind], spec, tmp_path / "patch", payload={})
    influence = naive.block_influence(naive.whole_model(checkpoints[kind]), np.load(windows_file))
    np.testing.assert_allclose(manifest.evidence["block_influence"], influence, rtol=1e-4)
    assert manifest.kept_layers == tuple(sorted(np.argsort(influence, kind="stable")[2:].tolist()))


def test_the_papers_shortgpt_never_removes_the_last_block(checkpoints, calibration, tmp_path):
    spec = PruneSpec("shortgpt", blocks=3, preset="paper", calibration=calibration)
    assert prune(checkpoints["llama"], spec, tmp_path / "patch", payload={}).kept_layers == (3,)


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_owl_counts_outliers_over_all_linears_of_a_block(checkpoints, windows_file, calibration, tmp_path, kind):
    spec = PruneSpec("magnitude", "owl", SPARSITY, owl_m=3.0, calibration=calibration)
    manifest = prune(checkpoints[kind], spec, tmp_path / "patch", payload={})
    expected = naive.outlier_percentages(naive.whole_model(checkpoints[kind]), np.load(windows_file), 3.0)
    np.testing.assert_allclose(manifest.evidence["outliers"], expected, atol=0.01)
    shares = np.array(expected)
    shares = (shares - shares.min()) / (shares.max() - shares.min()) * 0.16
    np.testing.assert_allclose(
        [layer.requested for layer in manifest.layers], 1 - (shares - shares.mean() + 1 - SPARSITY), atol=1e-3
    )


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


def test_alpha_is_the_hill_estimate_over_singular_values(checkpoints, tmp_path):
    spec = PruneSpec("magnitude", "alphapruning", SPARSITY, alpha_fit="median")
    manifest = prune(checkpoints["llama"], spec, tmp_path / "patch", payload={})
    model = naive.whole_model(checkpoints["llama"])
    expected = []
    for layer in range(4):
        alphas = []
        for name in naive.LINEARS:
            values = np.sort(np.linalg.svd(naive.weight(model, (layer, name)), compute_uv=False) ** 2)
            tail = values[len(values) // 2 :]
            alphas.append(1 + len(tail) / np.log(tail / tail[0]).sum())
        expected.append(np.mean(alphas))
    np.testing.assert_allclose(manifest.evidence["alpha"], expected, rtol=1e-4)


def test_ties_fall_in_row_major_order(checkpoints, tmp_path, windows_file):
    """Weights on a coarse grid: most entries tie, so only the order decides."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 8).round().clamp(-2, 2) / 8 + 0.03125)
    model.save_pretrained(tmp_path / "coarse")
    reread = naive.whole_model(tmp_path / "coarse")
    for number, (group, selection) in enumerate((g, s) for g in ("matrix", "model") for s in ("exact", "threshold")):
        spec = PruneSpec("magnitude", sparsity=SPARSITY, group=group, selection=selection)
        prune(tmp_path / "coarse", spec, tmp_path / f"patch{number}", payload={})
        got = resulting(tmp_path / f"patch{number}", tmp_path / "coarse")
        scores = {key: np.abs(naive.weight(reread, key)) for key in naive.keys(reread)}
        cut = naive.group_exact if selection == "exact" else naive.group_threshold
        groups = [[key] for key in scores] if group == "matrix" else [list(scores)]
        dropped = {}
        for members in groups:
            count = int(sum(scores[key].size for key in members) * SPARSITY)
            dropped |= dict(zip(members, cut([scores[key] for key in members], count), strict=True))
        assert_same_masks(got, dropped)
