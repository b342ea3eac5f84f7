"""The rules of a PruneSpec: what is refused, and the value of every knob that was not given.

`resolve` makes each knob that matters explicit and sets every other to None, so that two specs that prune alike
are equal, whatever preset they were written with (promise same-name-same-bytes).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final

from pruning.allocators import ALLOCATORS, DEFAULT
from pruning.knobs import KNOBS, knobs_of
from pruning.methods import METHODS
from pruning.spec import (
    DATA_FIELDS,
    PATTERNS,
    PRESETS,
    CalibrationSpec,
    Choice,
    Fraction,
    PruneSpec,
    Whole,
    check_name,
    describe,
)

_WINDOWS: Final = ("document", "packed")
_COMPUTE: Final = ("stored", "bfloat16", "float32")


def resolve(spec: PruneSpec) -> PruneSpec:
    """`spec`, checked, with every knob that matters explicit and every other, `preset` included, None.

    Raises ValueError as `check` does.
    """
    check(spec)
    filled = _fill(spec)
    calibration = _resolve_calibration(spec.calibration)
    train = validation = None
    if filled.allocator is not None and ALLOCATORS[filled.allocator].reads_gradients:
        train = _resolve_calibration(spec.influence_train) or calibration
        assert train is not None, "check() demands calibration for gradients"
        validation = _resolve_calibration(spec.influence_validation) or _apart_from(train)
        if validation == train or (train.data == validation.data and train.data.endswith(".npy")):
            raise ValueError(
                "influence_validation: it is the training data itself, so every sample would vouch "
                "for itself; give other data or another seed."
            )
    return replace(
        filled,
        calibration=calibration if reads_activations(filled) else None,
        influence_train=train,
        influence_validation=validation,
    )


def needs_calibration(spec: PruneSpec) -> bool:
    """Whether the method or the allocator of a spec reads activations or gradients."""
    allocator = ALLOCATORS.get(spec.allocator or DEFAULT)
    return reads_activations(spec) or (allocator is not None and allocator.reads_gradients)


def reads_activations(spec: PruneSpec) -> bool:
    """Whether the method or the allocator of a spec reads activations."""
    allocator = ALLOCATORS.get(spec.allocator or DEFAULT)
    return METHODS[spec.method].calibrated or (allocator is not None and allocator.calibrated)


def packages(spec: PruneSpec) -> dict[str, str]:
    """`method` or `allocator` -> `distribution version` of the installed package that the spec's is of; not ours."""
    found = {"method": METHODS.package(spec.method), "allocator": ALLOCATORS.package(spec.allocator or DEFAULT)}
    return {axis: package for axis, package in found.items() if package is not None}


def check(spec: PruneSpec) -> None:
    """Raise ValueError that names the axis, the rule and the remedy if `spec` cannot be carried out."""
    check_name("method", spec.method, METHODS)
    check_name("preset", spec.preset or PRESETS[0], PRESETS)
    method = METHODS[spec.method]
    _check_blocks(spec)
    if method.masks:
        _check_sparsity(spec)
    for axis in () if method.masks else ("allocator", "sparsity", "pattern"):
        if getattr(spec, axis) is not None:
            raise ValueError(f"{axis}: {spec.method} has no {axis}; leave it out.")
    for axis in () if method.reads_checkpoint else ("path", "label"):
        if getattr(spec, axis) is not None:
            readers = ", ".join(name for name, row in METHODS.built_in.items() if row.reads_checkpoint)
            raise ValueError(f"{axis}: only {readers} reads a checkpoint; {spec.method} does not. Drop {axis!r}.")
    _check_knobs(spec)
    for axis in DATA_FIELDS:
        value = getattr(spec, axis)
        if value is None:
            continue
        if axis != "calibration" and (spec.allocator is None or not ALLOCATORS[spec.allocator].reads_gradients):
            readers = ", ".join(name for name, row in ALLOCATORS.built_in.items() if row.reads_gradients)
            raise ValueError(f"{axis}: only {readers} reads gradients; leave it out.")
        _check_calibration(axis, value)
    only_gradients = not method.calibrated and spec.influence_train is not None
    if needs_calibration(spec) and spec.calibration is None and not only_gradients:
        raise ValueError(
            f"calibration: {describe(spec)} needs calibration data; give a FILE.jsonl, tokens.npy, 'c4' or a hub id."
        )
    _check_together(_fill(spec))


def _fill(spec: PruneSpec) -> PruneSpec:
    """Every knob at its value: the given one, else the preset's; None where it cannot change the result."""
    preset = spec.preset or PRESETS[0]
    filled = replace(_with_allocator(spec), preset=None, label=_label(spec))
    if filled.pattern is not None:
        filled = replace(filled, sparsity=PATTERNS[filled.pattern])
    taken = knobs_of(filled)
    for name in KNOBS.keys() - taken.keys():
        filled = _with(filled, name, None)
    for name, knob in taken.items():
        given = getattr(filled, name)
        filled = _with(filled, name, knob.default(preset, filled) if given is None else given)
        if not knob.matters(filled):
            filled = _with(filled, name, None)
    return filled


def _with(spec: PruneSpec, knob: str, value: Any) -> PruneSpec:
    settled: dict[str, Any] = {knob: value}
    return replace(spec, **settled)


def _with_allocator(spec: PruneSpec) -> PruneSpec:
    """`spec` with the default allocator, if its method takes one and it names none."""
    return replace(spec, allocator=spec.allocator or DEFAULT) if METHODS[spec.method].masks else spec


def _label(spec: PruneSpec) -> str | None:
    """What people call the checkpoint of a spec: as they say, else the last part of its path or hub id."""
    if spec.label is None and spec.path:
        return PurePath(spec.path).name.partition("@")[0] or spec.path
    return spec.label


def _check_blocks(spec: PruneSpec) -> None:
    if METHODS[spec.method].removes_blocks:
        if not isinstance(spec.blocks, int) or isinstance(spec.blocks, bool) or spec.blocks < 1:
            raise ValueError(f"blocks: {spec.method} removes whole blocks; give blocks >= 1, not {spec.blocks!r}.")
    elif spec.blocks is not None:
        removers = ", ".join(name for name, row in METHODS.built_in.items() if row.removes_blocks)
        raise ValueError(f"blocks: only {removers} removes blocks; {spec.method} does not. Drop 'blocks'.")


def _check_sparsity(spec: PruneSpec) -> None:
    check_name("allocator", spec.allocator or DEFAULT, ALLOCATORS)
    if spec.pattern is None:
        problem = Fraction(0, 1, closed_top=False).complaint(spec.sparsity)
        if spec.sparsity is None or problem:
            raise ValueError(f"sparsity: {spec.method} needs a fraction in [0, 1), not {spec.sparsity!r}.")
        return
    check_name("pattern", spec.pattern, PATTERNS)
    gives = PATTERNS[spec.pattern]
    if spec.sparsity not in (None, gives):
        raise ValueError(f"sparsity: pattern {spec.pattern} gives exactly {gives}, not {spec.sparsity}; drop one.")
    if spec.allocator not in (None, DEFAULT):
        raise ValueError(
            f"allocator: pattern {spec.pattern} fixes every layer's sparsity at {gives}; use {DEFAULT!r}, "
            f"not {spec.allocator!r}."
        )


def _check_knobs(spec: PruneSpec) -> None:
    taken = knobs_of(_with_allocator(spec))
    for name, knob in KNOBS.items():
        value = getattr(spec, name)
        if value is None:
            continue
        if name not in taken:
            raise ValueError(f"{name}: has no meaning for {describe(spec)} ({knob.about}); leave it out.")
        if isinstance(knob.domain, Choice):
            check_name(name, value, knob.domain.names)
        elif problem := knob.domain.complaint(value):
            raise ValueError(f"{name}: {problem}, not {value!r}.")


def _check_together(filled: PruneSpec) -> None:
    """The rules that tie two fields together, on a filled spec."""
    METHODS[filled.method].check(filled)
    if filled.allocator is not None:
        ALLOCATORS[filled.allocator].check(filled)
    if filled.group == "model" and filled.allocator != DEFAULT:
        raise ValueError(
            f"group: 'model' ranks all layers together, which leaves {filled.allocator} nothing to allocate; "
            f"use allocator {DEFAULT!r} or another group."
        )
    if filled.group == "model" and filled.propagate == "pruned":
        raise ValueError("group: 'model' needs every layer's scores before pruning any; set propagate='dense'.")


def _check_calibration(axis: str, spec: CalibrationSpec) -> None:
    if not spec.data:
        raise ValueError(f"{axis}.data: empty; give a FILE.jsonl, tokens.npy, 'c4' or a hub dataset id.")
    for name, least in (("samples", 1), ("tokens", 2), ("seed", 0)):
        value = getattr(spec, name)
        from_file = spec.data.endswith(".npy") and value == 0  # a resolved spec: the file's shape decides
        if not from_file and (problem := Whole(least).complaint(value)):
            raise ValueError(f"{axis}.{name}: {problem}, not {value!r}.")
    if spec.windows is not None:
        check_name(f"{axis}.windows", spec.windows, _WINDOWS)
    check_name(f"{axis}.compute", spec.compute, _COMPUTE)


def _apart_from(train: CalibrationSpec) -> CalibrationSpec:
    """The validation data of training data that came without: other documents of the same source."""
    return replace(train, seed=train.seed + 1, apart=True)


def _resolve_calibration(spec: CalibrationSpec | None) -> CalibrationSpec | None:
    if spec is None:
        return None
    if spec.data.endswith(".npy"):  # the file is the windows: its shape decides, nothing is drawn
        return replace(spec, samples=0, tokens=0, seed=0, windows=None)
    return replace(spec, windows=spec.windows or ("document" if spec.data == "c4" else "packed"))
