"""What pruning made of a checkpoint, and its comparison with the naive references."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pruning.model.checkpoint import Checkpoint
from pruning.patch.patch import Patch
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.support.reference import LINEARS, Key


def pruned_weights(model_dir: Path, spec: PruneSpec, patch: Path) -> dict[Key, np.ndarray]:
    """The linears of base + patch, float64, after pruning into the folder `patch`."""
    prune(model_dir, spec, patch, payload={})
    base = Checkpoint.open(model_dir)
    tensors = {name: tensor.double().numpy() for name, tensor in Patch.open(patch).weights(base)}
    return {
        (layer, name): tensors[f"model.layers.{layer}.{name}.weight"]
        for layer in range(base.num_layers)
        for name in LINEARS
    }


def assert_same_masks(got: dict[Key, np.ndarray], dropped: dict[Key, np.ndarray]) -> None:
    """Exactly the weights that the reference dropped are zero."""
    assert got.keys() == dropped.keys()
    for key, weights in got.items():
        np.testing.assert_array_equal(weights == 0, dropped[key], err_msg=str(key))
