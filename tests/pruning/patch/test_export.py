"""An export is an ordinary checkpoint."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning.model.checkpoint import Checkpoint
from pruning.patch.export import export
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.pruning.conftest import SHAPES

SPECS = {
    "dense": lambda data: PruneSpec("dense"),
    "wanda": lambda data: PruneSpec("wanda", sparsity=0.2, calibration=data),
    "sparsegpt": lambda data: PruneSpec("sparsegpt", sparsity=0.2, calibration=data),
    "shortgpt": lambda data: PruneSpec("shortgpt", blocks=2, calibration=data),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("method", SPECS)
def test_export_loads_in_transformers_and_computes_what_the_manifest_says(
    checkpoints, calibration, tmp_path, kind, method
):
    manifest = prune(checkpoints[kind], SPECS[method](calibration), tmp_path / "patch", payload={})
    export(checkpoints[kind], tmp_path / "patch", tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    assert len(model.model.layers) == len(manifest.kept_layers)
    ids = torch.tensor(manifest.canary.token_ids)
    with torch.no_grad():
        logprobs = model(ids[None]).logits[0].log_softmax(-1)
    expected = logprobs[:-1].gather(1, ids[1:, None])[:, 0]
    np.testing.assert_allclose(manifest.canary.logprobs, expected.numpy(), atol=2e-4)
    assert len(ids) == min(192, Checkpoint.open(checkpoints[kind]).context_length)
    exported = Checkpoint.open(tmp_path / "export")
    assert exported.tensor_digests() == manifest.tensors
    types = Checkpoint.open(checkpoints[kind]).config.get("layer_types")
    if types is not None:
        assert exported.config["layer_types"] == [types[layer] for layer in manifest.kept_layers]


def test_export_names_the_class_that_engines_ask_for(checkpoints, tmp_path):
    """Transformers does without `architectures`, vLLM does not."""
    base = shutil.copytree(checkpoints["llama"], tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    del config["architectures"]
    (base / "config.json").write_text(json.dumps(config))
    prune(base, PruneSpec("dense"), tmp_path / "patch", payload={})
    export(base, tmp_path / "patch", tmp_path / "export")
    assert json.loads((tmp_path / "export" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
