"""What to prune and how: typed values, no torch, imported in milliseconds.

A `PruneSpec` names a method and an allocator; every other field is a knob whose None means "the preset's
value". `resolve` makes each knob explicit and sets the knobs that do not matter to None, so that two specs
that prune alike are equal whatever preset they were written with (promise same-name-same-bytes). Which knob
matters when, what it may be and what each preset takes is a table in `knobs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from pruning.knobs import KNOBS, PRESETS, Choice, Fraction, Traits, complaint, nearest


@dataclass(frozen=True)
class CalibrationSpec:
    """Where calibration tokens come from.

    `data`: FILE.jsonl (`text`, chat `messages` or `token_ids` per line), FILE.parquet (a `token_ids` column,
    as the orchestrator's `export` writes reasoning traces), tokens.npy (int64 [samples, tokens], the exact
    windows), `c4`, `pg19`, or a hub dataset id with an optional `:split`.
    `windows`: 'document' draws a random window inside one long document, as the wanda repository does;
    'packed' joins shuffled documents; None is 'document' for c4 and 'packed' for everything else.
    `compute`: dtype of the calibration forward; 'stored' is the checkpoint's own, float16 widened to bfloat16
    because Qwen2.5-7B's activations overflow float16. Statistics are float32 or wider in every case.
    """

    data: str
    samples: int = 128
    tokens: int = 2048
    seed: int = 0
    windows: str | None = None
    compute: str = "stored"


@dataclass(frozen=True)
class PruneSpec:
    """One way to prune a checkpoint; see docs/pruning.md for every knob and its source."""

    method: str
    allocator: str | None = None
    sparsity: float | None = None
    pattern: str | None = None
    blocks: int | None = None
    preset: str | None = None
    calibration: CalibrationSpec | None = None
    group: str | None = None
    selection: str | None = None
    propagate: str | None = None
    ria_power: float | None = None
    sparsegpt_block: int | None = None
    sparsegpt_damp: float | None = None
    last_block: str | None = None
    bounds: str | None = None
    max_sparsity: float | None = None
    owl_m: float | None = None
    owl_lambda: float | None = None
    owl_floor: float | None = None
    alpha_fit: str | None = None
    alpha_epsilon: float | None = None
    layerif_units: str | None = None
    layerif_direction: str | None = None
    layerif_sign: str | None = None
    layerif_aggregate: str | None = None
    layerif_smoothing: int | None = None
    layerif_degree: int | None = None
    layerif_low: float | None = None
    layerif_high: float | None = None
    layerif_hessian: str | None = None
    influence_train: CalibrationSpec | None = None
    influence_validation: CalibrationSpec | None = None


METHODS: Final[Mapping[str, Traits]] = {
    "dense": Traits(calibrated=False, allocated=False, patterned=False),
    "magnitude": Traits(calibrated=False, allocated=True, patterned=True),
    "wanda": Traits(calibrated=True, allocated=True, patterned=True),
    "ria": Traits(calibrated=True, allocated=True, patterned=True),
    "sparsegpt": Traits(calibrated=True, allocated=True, patterned=True),
    "shortgpt": Traits(calibrated=True, allocated=False, patterned=False),
}
ALLOCATORS: Final[Mapping[str, bool]] = {
    "uniform": False,
    "owl": True,
    "layerif": True,
    "alphapruning": False,
}
"""Allocator -> whether it needs calibration data."""

PATTERNS: Final[Mapping[str, float]] = {"2:4": 0.5, "4:8": 0.5, "1:4": 0.25}
"""N:M pattern -> the sparsity it gives: N of every M consecutive inputs are dropped."""

_WINDOWS: Final = ("document", "packed")
_COMPUTE: Final = ("stored", "bfloat16", "float32")
_NESTED: Final = ("calibration", "influence_train", "influence_validation")


def needs_calibration(spec: PruneSpec) -> bool:
    """Whether the method or the allocator reads activations or gradients."""
    return METHODS[spec.method].calibrated or ALLOCATORS.get(spec.allocator or "uniform", False)


def check(spec: PruneSpec) -> None:
    """Raise ValueError that names the axis, the rule and the remedy if `spec` cannot be carried out."""
    _check_name("method", spec.method, tuple(METHODS))
    _check_name("preset", spec.preset or PRESETS[0], PRESETS)
    traits = METHODS[spec.method]
    if spec.method == "shortgpt":
        if not isinstance(spec.blocks, int) or isinstance(spec.blocks, bool) or spec.blocks < 1:
            raise ValueError(f"blocks: shortgpt removes whole blocks; give blocks >= 1, not {spec.blocks!r}.")
    elif spec.blocks is not None:
        raise ValueError(f"blocks: only shortgpt removes blocks; {spec.method} takes a sparsity. Drop 'blocks'.")
    if traits.allocated:
        _check_sparsity(spec)
    for axis in () if traits.allocated else ("allocator", "sparsity", "pattern"):
        if getattr(spec, axis) is not None:
            raise ValueError(f"{axis}: {spec.method} has no {axis}; leave it out.")
    _check_knobs(spec)
    for axis in _NESTED:
        value = getattr(spec, axis)
        if value is None:
            continue
        if axis != "calibration" and spec.allocator != "layerif":
            raise ValueError(f"{axis}: only layerif weighs gradients; leave it out.")
        _check_calibration(axis, value)
    only_gradients = not traits.calibrated and spec.influence_train is not None
    if needs_calibration(spec) and spec.calibration is None and not only_gradients:
        raise ValueError(
            f"calibration: {describe(spec)} needs calibration data; give a FILE.jsonl, tokens.npy, 'c4' or a hub id."
        )
    _check_together(_fill(spec))


def resolve(spec: PruneSpec) -> PruneSpec:
    """`spec`, checked, with every knob that matters explicit and every other, `preset` included, None."""
    check(spec)
    filled = _fill(spec)
    calibration = _resolve_calibration(spec.calibration)
    train = validation = None
    if filled.allocator == "layerif":
        train = _resolve_calibration(spec.influence_train) or calibration
        assert train is not None, "check() demands calibration for layerif"
        validation = _resolve_calibration(spec.influence_validation) or replace(train, seed=train.seed + 1)
        if validation == train or (train.data == validation.data and train.data.endswith(".npy")):
            raise ValueError(
                "influence_validation: it is the training data itself, so every sample would vouch "
                "for itself; give other data or another seed."
            )
    activations = METHODS[spec.method].calibrated or filled.allocator == "owl"
    return replace(
        filled,
        calibration=calibration if activations else None,
        influence_train=train,
        influence_validation=validation,
    )


def _fill(spec: PruneSpec) -> PruneSpec:
    """Every knob at its value: the given one, else the preset's; None where it cannot change the result."""
    preset = spec.preset or PRESETS[0]
    filled = replace(spec, preset=None)
    if METHODS[spec.method].allocated:
        sparsity = spec.sparsity if spec.pattern is None else PATTERNS[spec.pattern]
        filled = replace(filled, allocator=spec.allocator or "uniform", sparsity=sparsity)
    for name, knob in KNOBS.items():
        given = getattr(spec, name)
        value = knob.defaults(preset, filled) if given is None else given
        settled: dict[str, Any] = {name: value if knob.matters(filled) else None}
        filled = replace(filled, **settled)
    return filled


def describe(spec: PruneSpec) -> str:
    """A short human name: 'wanda + owl at 0.2', 'shortgpt -2 blocks', 'dense'."""
    if spec.method == "shortgpt":
        return f"shortgpt -{spec.blocks} blocks"
    if spec.method == "dense":
        return "dense"
    return f"{spec.method} + {spec.allocator or 'uniform'} at {spec.pattern or spec.sparsity}"


def to_json(spec: PruneSpec) -> dict[str, Any]:
    """A JSON object without the fields that are None."""
    return {
        key: {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
        for key, value in asdict(spec).items()
        if value is not None
    }


def from_json(value: Mapping[str, Any]) -> PruneSpec:
    """The inverse of `to_json`. Raises ValueError on an unknown field, naming the nearest one."""
    for name in value:
        _check_name("field", name, tuple(field.name for field in fields(PruneSpec)))
    nested = {name: CalibrationSpec(**value[name]) for name in _NESTED if value.get(name) is not None}
    return PruneSpec(**{**value, **nested})


def _check_name(axis: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{axis}: {value!r} is unknown{nearest(value, allowed)}; choose from {', '.join(allowed)}.")


def _check_sparsity(spec: PruneSpec) -> None:
    _check_name("allocator", spec.allocator or "uniform", tuple(ALLOCATORS))
    if spec.pattern is None:
        problem = complaint(Fraction(0, 1, closed_top=False), spec.sparsity)
        if spec.sparsity is None or problem:
            raise ValueError(f"sparsity: {spec.method} needs a fraction in [0, 1), not {spec.sparsity!r}.")
        return
    _check_name("pattern", spec.pattern, tuple(PATTERNS))
    gives = PATTERNS[spec.pattern]
    if spec.sparsity not in (None, gives):
        raise ValueError(f"sparsity: pattern {spec.pattern} gives exactly {gives}, not {spec.sparsity}; drop one.")
    if spec.allocator not in (None, "uniform"):
        raise ValueError(
            f"allocator: pattern {spec.pattern} fixes every layer's sparsity at {gives}; use 'uniform', "
            f"not {spec.allocator!r}."
        )


def _check_knobs(spec: PruneSpec) -> None:
    complete = replace(spec, allocator=(spec.allocator or "uniform") if METHODS[spec.method].allocated else None)
    for name, knob in KNOBS.items():
        value = getattr(spec, name)
        if value is None:
            continue
        if not knob.applies(complete):
            raise ValueError(f"{name}: has no meaning for {describe(spec)} ({knob.about}); leave it out.")
        if isinstance(knob.domain, Choice):
            _check_name(name, value, knob.domain.names)
        elif problem := complaint(knob.domain, value):
            raise ValueError(f"{name}: {problem}, not {value!r}.")


def _check_together(filled: PruneSpec) -> None:
    """The rules that tie two knobs together, on a filled spec."""
    if filled.pattern and filled.sparsegpt_block and filled.sparsegpt_block % int(filled.pattern.split(":")[1]):
        raise ValueError(f"sparsegpt_block: must be a multiple of the group of pattern {filled.pattern}; use 128.")
    if filled.layerif_units == "parts" and (filled.layerif_low or 0) >= (filled.layerif_high or 0):
        raise ValueError("layerif_low: must be below layerif_high; swap them.")
    if filled.layerif_smoothing and filled.layerif_smoothing <= (filled.layerif_degree or 0):
        raise ValueError("layerif_smoothing: the window must be wider than layerif_degree; widen it or use 0.")
    if filled.group == "model" and filled.allocator != "uniform":
        raise ValueError(
            f"group: 'model' ranks all layers together, which leaves {filled.allocator} nothing to allocate; "
            "use allocator 'uniform' or another group."
        )
    if filled.group == "model" and filled.propagate == "pruned":
        raise ValueError("group: 'model' needs every layer's scores before pruning any; set propagate='dense'.")
    if filled.group == "layer" and filled.layerif_units == "parts":
        raise ValueError("group: 'layer' would undo an allocation per part; use 'row' or 'matrix'.")


def _check_calibration(axis: str, spec: CalibrationSpec) -> None:
    if not spec.data:
        raise ValueError(f"{axis}.data: empty; give a FILE.jsonl, tokens.npy, 'c4' or a hub dataset id.")
    for name, value, least in (
        ("samples", spec.samples, 1),
        ("tokens", spec.tokens, 2),
        ("seed", spec.seed, 0),
    ):
        exact = spec.data.endswith(".npy") and value == 0
        if not isinstance(value, int) or isinstance(value, bool) or (value < least and not exact):
            raise ValueError(f"{axis}.{name}: must be an integer >= {least}, not {value!r}.")
    if spec.windows is not None:
        _check_name(f"{axis}.windows", spec.windows, _WINDOWS)
    _check_name(f"{axis}.compute", spec.compute, _COMPUTE)


def _resolve_calibration(spec: CalibrationSpec | None) -> CalibrationSpec | None:
    if spec is None:
        return None
    if spec.data.endswith(".npy"):  # the file is the windows: its shape decides, nothing is drawn
        return replace(spec, samples=0, tokens=0, seed=0, windows=None)
    return replace(spec, windows=spec.windows or ("document" if spec.data == "c4" else "packed"))
