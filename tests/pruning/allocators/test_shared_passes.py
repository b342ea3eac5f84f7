"""Which passes over the unpruned model a spec names, by which a sweep decides what it prunes together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pruning.allocators.shared_passes import shared_passes
from pruning.resolve import resolve
from pruning.spec import CalibrationSpec, PruneSpec

DATA = CalibrationSpec("c4")
OWL = PruneSpec("magnitude", "owl", 0.2, calibration=DATA)


def named(spec: PruneSpec) -> tuple[str, ...]:
    return shared_passes(resolve(spec))


@pytest.mark.parametrize(
    "spec",
    [
        PruneSpec("dense"),
        PruneSpec("magnitude", sparsity=0.2),
        PruneSpec("wanda", sparsity=0.2, calibration=DATA),
        PruneSpec("sparsegpt", sparsity=0.2, propagate="dense", calibration=DATA),
    ],
)
def test_nothing_is_shared_by_what_reads_weights_only_or_prunes_in_a_pass_of_its_own(spec: PruneSpec) -> None:
    assert named(spec) == ()


@pytest.mark.parametrize(
    "spec",
    [
        replace(OWL, sparsity=0.7, owl_m=3.0),
        replace(OWL, method="wanda"),
        replace(OWL, method="sparsegpt"),
        PruneSpec("wanda", sparsity=0.2, propagate="dense", calibration=DATA),
        PruneSpec("shortgpt", blocks=2, calibration=DATA),
    ],
)
def test_activations_on_the_same_data_have_the_same_name_whatever_is_made_of_them(spec: PruneSpec) -> None:
    assert named(spec) == named(OWL)
    assert len(named(OWL)) == 1


@pytest.mark.parametrize("other", [replace(DATA, seed=1), replace(DATA, compute="float32"), CalibrationSpec("pg19")])
def test_other_data_have_another_name(other: CalibrationSpec) -> None:
    assert not set(named(replace(OWL, calibration=other))) & set(named(OWL))


def test_weight_statistics_and_gradients_have_names_of_their_own() -> None:
    alpha = PruneSpec("magnitude", "alphapruning", 0.2)
    influence = PruneSpec("magnitude", "layerif", 0.2, calibration=DATA)
    assert len({*named(alpha), *named(replace(alpha, alpha_fit="median")), *named(influence), *named(OWL)}) == 4
    assert named(replace(alpha, sparsity=0.5)) == named(replace(alpha, method="wanda", calibration=DATA))
    both = replace(influence, method="wanda", propagate="dense")
    assert named(both) == (*named(OWL), *named(influence))
