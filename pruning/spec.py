"""What to prune and how, as values. Imports neither torch nor numpy.

A `PruneSpec` names a method and an allocator; every other field is a knob, and None means "the preset's
value". `Knob` says what one such field may be. Methods and allocators bring their knobs with them
(methods/, allocators/), knobs.py makes the table of all, and resolve.py checks a spec and fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Final

PRESETS: Final = ("recommended", "upstream", "paper")
"""Named sets of knob values: `recommended` is each method's own with allocations that meet the target, `upstream`
follows each method's repository, clamping included, and `paper` follows arXiv 2604.25098's code
(OCM-7898/TTS-Pruning), quirks included."""

DENSE: Final = "dense"
"""The method that prunes nothing."""

PATTERNS: Final[Mapping[str, float]] = {"2:4": 0.5, "4:8": 0.5, "1:4": 0.25}
"""N:M pattern -> the sparsity it gives: N of every M consecutive inputs are dropped."""

DATA_FIELDS: Final = ("calibration", "influence_train", "influence_validation")
"""The fields of a PruneSpec that hold a CalibrationSpec."""


@dataclass(frozen=True)
class CalibrationSpec:
    """Where calibration tokens come from.

    `data`: FILE.jsonl (`text`, chat `messages` or `token_ids` per line), FILE.parquet (a `token_ids` column,
    as the orchestrator's `export` writes reasoning traces), FILE.txt (plain text, a document being what blank lines
    separate), tokens.npy (int64 [samples, tokens], the exact
    windows), `c4`, `pg19`, or a hub dataset id with an optional `:split`.
    `windows`: 'document' draws a random window inside one long document, as the wanda repository does;
    'packed' joins shuffled documents; None is 'document' for c4 and 'packed' for everything else.
    `compute`: dtype of the calibration forward; 'stored' is the checkpoint's own, float16 widened to bfloat16
    because Qwen2.5-7B's activations overflow float16. Statistics are float32 or wider in every case.
    `apart`: drawn only from documents that the training windows of the same data do not touch, True or None.
    """

    data: str
    samples: int = 128
    tokens: int = 2048
    seed: int = 0
    windows: str | None = None
    compute: str = "stored"
    apart: bool | None = None


@dataclass(frozen=True)
class PruneSpec:
    """One way to prune a checkpoint; docs/pruning.md explains every knob and gives its source.

    The names of the fields are stored: identity payloads and manifests are made of them.
    """

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
    tie_limit: float | None = None
    path: str | None = None
    """The checkpoint that method 'checkpoint' reads: a folder, or in a grid a hub id. A payload has its digest here."""
    label: str | None = None
    """What people call it."""

    @property
    def is_dense(self) -> bool:
        """Whether the checkpoint stays as it is."""
        return self.method == DENSE


@dataclass(frozen=True)
class Choice:
    """One of `names`."""

    names: tuple[str, ...]

    def complaint(self, value: object) -> str | None:
        """The rule that `value` breaks, or None."""
        return None if value in self.names else f"must be one of {', '.join(self.names)}"


@dataclass(frozen=True)
class Fraction:
    """A number in [low, high], or in [low, high) if not `closed_top`."""

    low: float
    high: float
    closed_top: bool = True

    def complaint(self, value: object) -> str | None:
        """The rule that `value` breaks, or None."""
        inside = isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high
        if inside and (self.closed_top or value != self.high):
            return None
        return f"must be a number in [{self.low}, {self.high}{']' if self.closed_top else ')'}"


@dataclass(frozen=True)
class Whole:
    """An integer >= low."""

    low: int

    def complaint(self, value: object) -> str | None:
        """The rule that `value` breaks, or None."""
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= self.low
        return None if whole else f"must be an integer >= {self.low}"


Default = Callable[[str, PruneSpec], Any]
"""(preset, spec) -> the value of a knob that was not given; the spec's earlier knobs are filled in already."""


@dataclass(frozen=True)
class Knob:
    """What a field of PruneSpec may be. `matters` says whether the value can change the result of a spec, filled
    in so far, whose method or allocator takes the knob.
    """

    about: str
    domain: Choice | Fraction | Whole
    default: Default
    matters: Callable[[PruneSpec], bool] = lambda spec: True


def always(value: Any) -> Default:
    """The same default in every preset."""
    return lambda preset, spec: value


def by_preset(recommended: Any, upstream: Any, paper: Any) -> Default:
    """One default for each preset."""
    values = dict(zip(PRESETS, (recommended, upstream, paper), strict=True))
    return lambda preset, spec: values[preset]


def n_of_m(pattern: str) -> tuple[int, int]:
    """'2:4' -> (2, 4)."""
    dropped, group = pattern.split(":")
    return int(dropped), int(group)


def describe(spec: PruneSpec) -> str:
    """A short human name: 'wanda + owl at 0.2', 'shortgpt -2 blocks', 'dense'; a checkpoint's is its label."""
    if spec.is_dense:
        return DENSE
    if spec.path is not None:
        return spec.label or f"{spec.method} {spec.path[:12]}"
    if spec.blocks is not None:
        return f"{spec.method} -{spec.blocks} blocks"
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
    known = [field.name for field in fields(PruneSpec)]
    for name in value:
        check_name("field", name, known)
    data = {name: CalibrationSpec(**value[name]) for name in DATA_FIELDS if value.get(name) is not None}
    return PruneSpec(**{**value, **data})


def check_name(axis: str, value: object, known: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of the `known` names."""
    known = list(known)
    if value not in known:
        raise ValueError(f"{axis}: {value!r} is unknown.{nearest(value, known)} Choose from {', '.join(known)}.")


def nearest(value: object, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known name, or nothing when none is close."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(str(value).lower(), lowered, n=1)
    return f" Did you mean {lowered[close[0]]!r}?" if close else ""
