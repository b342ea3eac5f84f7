"""Specs as values: names people read, JSON, and that importing them is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pruning.spec import CalibrationSpec, PruneSpec, describe, from_json


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (PruneSpec("dense"), "dense"),
        (PruneSpec("shortgpt", blocks=2, calibration=CalibrationSpec("c4")), "shortgpt -2 blocks"),
        (PruneSpec("wanda", "owl", 0.2), "wanda + owl at 0.2"),
        (PruneSpec("magnitude", pattern="2:4"), "magnitude + uniform at 2:4"),
        (PruneSpec("checkpoint", path="some/folder", label="mine"), "mine"),
        (PruneSpec("checkpoint", path="0123456789abcdef" * 4), "checkpoint 0123456789ab"),
    ],
)
def test_short_names(spec, name):
    assert describe(spec) == name
    assert spec.is_dense == (name == "dense")


def test_unknown_json_field_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'sparsity'"):
        from_json({"method": "magnitude", "sparsty": 0.2})


def test_reading_specs_checkpoints_and_manifests_loads_no_torch():
    program = (
        "import sys, pruning.resolve, pruning.model.checkpoint, pruning.patch.patch; "
        "sys.exit(bool({'torch', 'transformers', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
