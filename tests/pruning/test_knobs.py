"""The table of knobs: what is in it, and what the paper's preset expands to."""

from __future__ import annotations

from dataclasses import fields

import pytest

from pruning.knobs import KNOBS
from pruning.resolve import resolve
from pruning.spec import CalibrationSpec, PruneSpec

DATA = CalibrationSpec("data.jsonl", samples=8, tokens=64)


def test_every_knob_of_the_table_is_a_field_and_the_rest_are_axes():
    axes = {"method", "allocator", "sparsity", "pattern", "blocks", "preset", "calibration"}
    axes |= {"influence_train", "influence_validation", "path", "label"}
    assert {field.name for field in fields(PruneSpec)} == axes | KNOBS.keys()


@pytest.mark.parametrize(
    ("allocator", "expected"),
    [
        ("uniform", {"group": "row", "selection": "exact", "propagate": "pruned"}),
        ("owl", {"group": "row", "propagate": "pruned", "owl_m": 7.0, "owl_lambda": 0.08, "owl_floor": 0.01}),
        ("layerif", {"group": "matrix", "propagate": "dense", "layerif_low": 0.05, "layerif_high": 0.4}),
    ],
)
def test_paper_preset_is_the_table_of_the_papers_fork(allocator, expected):
    """methods.md section 2.3 and 4.2."""
    settled = resolve(PruneSpec("wanda", allocator, 0.1, preset="paper", calibration=DATA))
    assert {name: getattr(settled, name) for name in expected} == expected
    magnitude = resolve(PruneSpec("magnitude", allocator, 0.1, preset="paper", calibration=DATA))
    assert magnitude.group == "matrix"
    assert magnitude.selection == ("threshold" if allocator == "uniform" else "exact")


@pytest.mark.parametrize(("method", "floor"), [("wanda", 0.01), ("sparsegpt", 0.01), ("magnitude", 0.0)])
def test_upstream_owl_prunes_one_percent_of_a_block_whose_sparsity_is_not_positive(method, floor):
    """luuyin/OWL lib/prune_all.py, prune_wanda_outlier and prune_sparsegpt_outlier."""
    assert resolve(PruneSpec(method, "owl", 0.1, preset="upstream", calibration=DATA)).owl_floor == floor
    assert resolve(PruneSpec(method, "owl", 0.1, calibration=DATA)).owl_floor == 0  # waterfill meets the target instead
