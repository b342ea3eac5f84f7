"""Specs: what is refused and how, and that resolving settles identity."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pruning.allocators import ALLOCATORS
from pruning.knobs import KNOBS, knobs_of
from pruning.methods import METHODS
from pruning.resolve import check, needs_calibration, resolve
from pruning.spec import PATTERNS, PRESETS, CalibrationSpec, PruneSpec, from_json, to_json

DATA = CalibrationSpec("data.jsonl", samples=8, tokens=64)


def every_valid_spec() -> list[PruneSpec]:
    specs = [PruneSpec("dense"), PruneSpec("shortgpt", blocks=1, calibration=DATA)]
    specs += [PruneSpec("checkpoint", path="org/pruned@main"), PruneSpec("checkpoint", path="a/b", label="mine")]
    for method, row in METHODS.items():
        if row.masks:
            specs += [PruneSpec(method, allocator, 0.2, calibration=DATA) for allocator in ALLOCATORS]
            specs += [PruneSpec(method, pattern=pattern, calibration=DATA) for pattern in PATTERNS]
    return [replace(spec, preset=preset) for spec in specs for preset in (None, *PRESETS)]


@pytest.mark.parametrize("spec", every_valid_spec(), ids=repr)
def test_resolving_is_idempotent_and_survives_json(spec):
    settled = resolve(spec)
    assert resolve(settled) == settled
    assert from_json(json.loads(json.dumps(to_json(settled)))) == settled
    assert settled.preset is None
    taken = knobs_of(settled)
    for name in KNOBS:
        assert (getattr(settled, name) is not None) == (name in taken and taken[name].matters(settled)), name


def test_identity_does_not_depend_on_how_a_preset_is_spelled():
    by_name = PruneSpec("wanda", "layerif", 0.2, preset="paper", calibration=DATA)
    by_hand = PruneSpec(
        "wanda", "layerif", 0.2, group="matrix", propagate="dense", bounds="clamp", max_sparsity=1.0, calibration=DATA
    )
    assert resolve(by_name) == resolve(by_hand)


def test_axes_that_do_not_matter_leave_no_trace():
    assert resolve(PruneSpec("magnitude", sparsity=0.2, calibration=DATA)) == resolve(
        PruneSpec("magnitude", "uniform", 0.2)
    )
    assert resolve(PruneSpec("wanda", sparsity=0.2, calibration=CalibrationSpec("t.npy", 7, 8, 9))) == resolve(
        PruneSpec("wanda", sparsity=0.2, calibration=CalibrationSpec("t.npy"))
    )
    assert resolve(PruneSpec("magnitude", pattern="2:4", sparsity=0.5)).group is None


@pytest.mark.parametrize("method", METHODS)
def test_calibration_is_demanded_exactly_where_it_is_read(method):
    shapes = {"shortgpt": {"blocks": 1}, "dense": {}, "checkpoint": {"path": "folder"}}
    spec = PruneSpec(method, **shapes.get(method, {"sparsity": 0.2}))
    if needs_calibration(spec):
        with pytest.raises(ValueError, match=r"calibration: .* needs calibration data; give"):
            check(spec)
    else:
        check(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PruneSpec("wnda", sparsity=0.2), "Did you mean 'wanda'"),
        (PruneSpec("magnitude", "olw", 0.2), "Did you mean 'owl'"),
        (PruneSpec("magnitude"), r"sparsity: magnitude needs a fraction in \[0, 1\), not None"),
        (PruneSpec("magnitude", sparsity=1.0), "not 1.0"),
        (PruneSpec("magnitude", sparsity=float("nan")), "not nan"),
        (PruneSpec("magnitude", sparsity=-0.1), "not -0.1"),
        (PruneSpec("magnitude", sparsity=0.3, pattern="2:4"), "gives exactly 0.5, not 0.3"),
        (PruneSpec("magnitude", pattern="2:5"), "pattern: '2:5' is unknown"),
        (PruneSpec("magnitude", "owl", pattern="2:4", calibration=DATA), "use 'uniform'"),
        (PruneSpec("magnitude", sparsity=0.2, blocks=1), "only shortgpt removes blocks"),
        (
            PruneSpec("magnitude", sparsity=0.2, path="folder"),
            "path: only checkpoint reads a checkpoint; magnitude does",
        ),
        (PruneSpec("dense", label="mine"), "label: only checkpoint reads a checkpoint; dense does not. Drop 'label'"),
        (PruneSpec("checkpoint"), "path: .* give its folder or hub id"),
        (PruneSpec("checkpoint", path=""), "path: .* give its folder or hub id"),
        (PruneSpec("checkpoint", path="a", sparsity=0.2), "sparsity: checkpoint has no sparsity"),
        (PruneSpec("checkpoint", path="a", label=" "), "label: ' ' cannot be shown in a table"),
        (PruneSpec("checkpoint", path="a", label="x @ 8"), "label: 'x @ 8' would be read as a limit or a model"),
        (PruneSpec("shortgpt", calibration=DATA), "give blocks >= 1"),
        (PruneSpec("shortgpt", blocks=1, sparsity=0.1, calibration=DATA), "shortgpt has no sparsity"),
        (PruneSpec("dense", allocator="uniform"), "dense has no allocator"),
        (PruneSpec("magnitude", sparsity=0.2, owl_m=3.0), "owl_m: has no meaning"),
        (PruneSpec("magnitude", sparsity=0.2, group="rows"), "Did you mean 'row'"),
        (PruneSpec("magnitude", pattern="2:4", group="row"), "group: has no meaning"),
        (PruneSpec("wanda", sparsity=0.2, group="model", calibration=DATA), "set propagate='dense'"),
        (PruneSpec("magnitude", "owl", 0.2, group="model", calibration=DATA), "use allocator 'uniform'"),
        (PruneSpec("magnitude", "layerif", 0.2, group="layer", calibration=DATA), "undo an allocation"),
        (PruneSpec("sparsegpt", pattern="4:8", sparsegpt_block=12, calibration=DATA), "multiple"),
        (PruneSpec("magnitude", "owl", 0.2, owl_lambda=2.0, calibration=DATA), r"number in \[0, 1\]"),
        (PruneSpec("magnitude", "layerif", 0.2, layerif_low=0.5, calibration=DATA), "below layerif_high"),
        (PruneSpec("magnitude", "layerif", 0.2, layerif_smoothing=2, calibration=DATA), "wider"),
        (PruneSpec("magnitude", "uniform", 0.2, influence_train=DATA), "only layerif"),
        (PruneSpec("wanda", sparsity=0.2, calibration=replace(DATA, samples=0)), "samples: must be"),
        (PruneSpec("wanda", sparsity=0.2, calibration=replace(DATA, tokens=1)), "tokens: must be"),
        (PruneSpec("wanda", sparsity=0.2, calibration=replace(DATA, compute="fp16")), "compute: 'fp16' is unknown"),
        (PruneSpec("wanda", sparsity=0.2, calibration=replace(DATA, windows="pack")), "Did you mean 'packed'"),
        (PruneSpec("magnitude", sparsity=0.2, preset="papr"), "Did you mean 'paper'"),
    ],
)
def test_bad_specs_are_refused_by_axis_rule_and_remedy(spec, message):
    with pytest.raises(ValueError, match=message):
        check(spec)


def test_training_data_may_not_validate_itself():
    data = CalibrationSpec("tokens.npy")
    with pytest.raises(ValueError, match="vouch"):
        resolve(PruneSpec("magnitude", "layerif", 0.2, calibration=data))


def test_default_validation_data_are_other_documents_of_the_training_data():
    settled = resolve(PruneSpec("magnitude", "layerif", 0.2, calibration=DATA))
    assert settled.influence_validation == replace(settled.influence_train, seed=1, apart=True)
    given = resolve(
        PruneSpec("magnitude", "layerif", 0.2, calibration=DATA, influence_validation=replace(DATA, seed=7))
    )
    assert given.influence_validation.apart is None
