"""`find_variant`: a variant by its label, `model: label` or patch id, or an error that helps."""

import re
import shutil

import pytest

from orchestrator.grid.errors import InputError
from orchestrator.plan.resolved_grid import find_variant
from tests.support.builders import TINY, TinySweep

PRUNED = {"method": "magnitude", "sparsity": 0.5}
LABEL = "magnitude + uniform at 0.5"


def test_variant_is_found_by_label_full_label_and_patch_id(sweep: TinySweep) -> None:
    sweep.variants.append(PRUNED)
    resolved = sweep.resolve_grid()
    pruned = resolved.variants[1]
    for name in (LABEL, f"{TINY / 'model'}: {LABEL}", pruned.patch_id):
        assert find_variant(resolved, name, "--variant") is pruned


def test_unknown_name_is_refused_with_the_nearest_and_the_option(sweep: TinySweep) -> None:
    resolved = sweep.resolve_grid()
    with pytest.raises(InputError, match=r"^--variant 'dens': .* has no such variant\. Did you mean 'dense'\?"):
        find_variant(resolved, "dens", "--variant")


def test_variants_with_one_label_are_told_apart_by_what_differs(sweep: TinySweep) -> None:
    calibration = {"data": str(TINY / "calibration.jsonl"), "samples": 4, "tokens": 32}
    wanda = {"method": "wanda", "sparsity": 0.5, "calibration": calibration}
    sweep.variants = [wanda, wanda | {"calibration": calibration | {"samples": 8}}]
    resolved = sweep.resolve_grid()
    one, other = resolved.variants
    expected = f"give the patch id of one: {one.patch_id}, {other.patch_id} (calibration samples 8 instead of 4)"
    with pytest.raises(InputError, match=re.escape(expected)):
        find_variant(resolved, "wanda + uniform at 0.5", "WHAT")
    assert find_variant(resolved, other.patch_id, "WHAT") is other


def test_two_paths_to_the_same_calibration_are_one_variant(sweep: TinySweep) -> None:
    copy = shutil.copy(TINY / "calibration.jsonl", sweep.folder / "copy.jsonl")
    for data in (TINY / "calibration.jsonl", copy):
        calibration = {"data": str(data), "samples": 4, "tokens": 32}
        sweep.variants.append({"method": "wanda", "sparsity": 0.5, "calibration": calibration})
    resolved = sweep.resolve_grid()
    assert find_variant(resolved, "wanda + uniform at 0.5", "WHAT").patch_id == resolved.variants[1].patch_id
