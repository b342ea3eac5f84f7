"""The table of pruning knobs: where each applies, what it may be, and what each preset takes.

Presets: `recommended` takes each method's own values with water-filled allocations; `upstream` follows each
method's own repository, clamping included; `paper` follows arXiv 2604.25098's code (OCM-7898/TTS-Pruning),
quirks included.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pruning.spec import PruneSpec

PRESETS: Final = ("recommended", "upstream", "paper")
SCORED: Final = ("magnitude", "wanda", "ria")


@dataclass(frozen=True)
class Traits:
    """What a method takes: calibration windows, a sparsity shared out by an allocator, an N:M pattern."""

    calibrated: bool
    allocated: bool
    patterned: bool


@dataclass(frozen=True)
class Choice:
    names: tuple[str, ...]


@dataclass(frozen=True)
class Fraction:
    """A number in [low, high], or [low, high) if not `closed_top`."""

    low: float
    high: float
    closed_top: bool = True


@dataclass(frozen=True)
class Whole:
    """An integer >= low."""

    low: int


Domain = Choice | Fraction | Whole
Default = Callable[[str, "PruneSpec"], Any]


@dataclass(frozen=True)
class Knob:
    """`applies` decides whether giving the knob makes sense; `matters` whether its value changes the
    result.
    """

    about: str
    domain: Domain
    applies: Callable[[PruneSpec], bool]
    defaults: Default
    matters: Callable[[PruneSpec], bool]


def complaint(domain: Domain, value: object) -> str | None:
    """Why `value` is outside the domain, or None."""
    if isinstance(domain, Choice):
        return None if value in domain.names else f"must be one of {', '.join(domain.names)}"
    if isinstance(domain, Whole):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= domain.low
        return None if whole else f"must be an integer >= {domain.low}"
    inside = isinstance(value, (int, float)) and not isinstance(value, bool) and domain.low <= value <= domain.high
    if inside and (domain.closed_top or value != domain.high):
        return None
    return f"must be a number in [{domain.low}, {domain.high}{']' if domain.closed_top else ')'}"


def nearest(value: object, allowed: tuple[str, ...]) -> str:
    """' (did you mean X?)' when a valid name is close, else nothing."""
    close = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _is(*methods: str) -> Callable[[PruneSpec], bool]:
    return lambda spec: spec.method in methods


def _free(*methods: str) -> Callable[[PruneSpec], bool]:
    return lambda spec: spec.method in methods and spec.pattern is None


def _allocated(*allocators: str) -> Callable[[PruneSpec], bool]:
    return lambda spec: spec.allocator in allocators


def _units(units: str) -> Callable[[PruneSpec], bool]:
    return lambda spec: spec.allocator == "layerif" and spec.layerif_units == units


def _preset(recommended: Any, upstream: Any, paper: Any) -> Default:
    table = {"recommended": recommended, "upstream": upstream, "paper": paper}
    return lambda preset, spec: table[preset]


def _always(value: Any) -> Default:
    return lambda preset, spec: value


def _group(preset: str, spec: PruneSpec) -> str:
    if spec.method == "wanda":
        return "matrix" if preset == "paper" and spec.allocator == "layerif" else "row"
    return "matrix"


def _selection(preset: str, spec: PruneSpec) -> str:
    if spec.method == "wanda":
        return "exact"
    exact = preset == "paper" and spec.method == "magnitude" and spec.allocator in ("owl", "layerif")
    return "exact" if exact else "threshold"


def _propagate(preset: str, spec: PruneSpec) -> str:
    quirk = preset == "paper" and spec.method == "wanda" and spec.allocator == "layerif"
    return "dense" if quirk else "pruned"


def _epsilon(preset: str, spec: PruneSpec) -> float:
    # LayerIF's run scripts take .1 with wanda and sparsegpt, .3 with magnitude; AlphaPruning .3 throughout.
    return 0.1 if spec.allocator == "layerif" and spec.method != "magnitude" else 0.3


def _floor(preset: str, spec: PruneSpec) -> float:
    # wanda_owl replaces a ratio <= 0 by .01 in OWL's and in the paper's code; magnitude_owl skips the layer.
    return 0.01 if spec.bounds == "clamp" and spec.method == "wanda" else 0.0


def _of_units(blocks: Any, parts: Any) -> Default:
    return lambda preset, spec: blocks if spec.layerif_units == "blocks" else parts


def _knob(
    about: str,
    domain: Domain,
    applies: Callable[[PruneSpec], bool],
    defaults: Default,
    matters: Callable[[PruneSpec], bool] | None = None,
) -> Knob:
    return Knob(about, domain, applies, defaults, matters or applies)


_shaped = _allocated("owl", "layerif", "alphapruning")
_layerif = _allocated("layerif")

# In order of resolution: a default may look at the knobs above its own.
KNOBS: Final[Mapping[str, Knob]] = {
    "group": _knob(
        "the weights ranked together; unstructured magnitude, wanda and ria",
        Choice(("row", "matrix", "layer", "model")),
        _free(*SCORED),
        _group,
    ),
    "selection": _knob(
        "exact count or threshold; unstructured methods",
        Choice(("exact", "threshold")),
        _free(*SCORED, "sparsegpt"),
        _selection,
    ),
    "propagate": _knob(
        "whose outputs the next block sees; calibrated methods",
        Choice(("pruned", "dense")),
        _is("wanda", "ria", "sparsegpt"),
        _propagate,
    ),
    "ria_power": _knob("exponent of the activation norm; ria", Fraction(0, 4), _is("ria"), _always(0.5)),
    "sparsegpt_block": _knob("columns per lazy update; sparsegpt", Whole(1), _is("sparsegpt"), _always(128)),
    "sparsegpt_damp": _knob(
        "share of the mean diagonal added to the Hessian; sparsegpt",
        Fraction(0, 1),
        _is("sparsegpt"),
        _always(0.01),
    ),
    "last_block": _knob(
        "whether the last block may be removed; shortgpt",
        Choice(("removable", "kept")),
        _is("shortgpt"),
        _preset("removable", "removable", "kept"),
    ),
    "bounds": _knob(
        "what to do with sparsities outside the range; owl, layerif, alphapruning",
        Choice(("waterfill", "clamp")),
        _shaped,
        _preset("waterfill", "clamp", "clamp"),
    ),
    "max_sparsity": _knob(
        "upper bound of a layer's sparsity; owl, layerif, alphapruning",
        Fraction(0, 1),
        _shaped,
        _preset(0.99, 0.99, 1.0),
    ),
    "owl_m": _knob("outlier multiple of the mean; owl", Fraction(0, 1000), _allocated("owl"), _preset(5.0, 3.0, 7.0)),
    "owl_lambda": _knob(
        "half the spread of sparsities; owl",
        Fraction(0, 1),
        _allocated("owl"),
        _always(0.08),
    ),
    "owl_floor": _knob("replaces a sparsity <= 0 when clamping; owl", Fraction(0, 1), _allocated("owl"), _floor),
    "alpha_fit": _knob(
        "where the power-law tail begins; alphapruning",
        Choice(("peak", "median")),
        _allocated("alphapruning"),
        _always("peak"),
    ),
    "layerif_units": _knob(
        "what gets a sparsity of its own; layerif",
        Choice(("blocks", "parts")),
        _layerif,
        _preset("parts", "blocks", "parts"),
    ),
    "alpha_epsilon": _knob(
        "half-width of the ratio range 1 +- epsilon; alphapruning and layerif by blocks",
        Fraction(0, 1, closed_top=False),
        _allocated("alphapruning", "layerif"),
        _epsilon,
        lambda spec: spec.allocator == "alphapruning" or spec.layerif_units == "blocks",
    ),
    "layerif_direction": _knob(
        "what a high score means; layerif",
        Choice(("protect-high", "prune-high")),
        _layerif,
        _of_units("prune-high", "protect-high"),
    ),
    "layerif_sign": _knob(
        "tracin: + helps validation; influence: + harms it; layerif",
        Choice(("tracin", "influence")),
        _layerif,
        _of_units("influence", "tracin"),
    ),
    "layerif_aggregate": _knob(
        "how samples are summed; layerif",
        Choice(("positive", "sum", "count")),
        _layerif,
        _always("positive"),
    ),
    "layerif_smoothing": _knob("Savitzky-Golay window, 0 for none; layerif", Whole(0), _layerif, _of_units(7, 5)),
    "layerif_degree": _knob(
        "Savitzky-Golay degree; layerif",
        Whole(0),
        _layerif,
        _of_units(3, 2),
        lambda spec: spec.allocator == "layerif" and bool(spec.layerif_smoothing),
    ),
    "layerif_low": _knob(
        "ratio of the most protected part; layerif by parts",
        Fraction(0, 1),
        _layerif,
        _always(0.05),
        _units("parts"),
    ),
    "layerif_high": _knob(
        "ratio of the least protected part; layerif by parts",
        Fraction(0, 1),
        _layerif,
        _always(0.40),
        _units("parts"),
    ),
    "layerif_hessian": _knob(
        "estimator of influence; layerif",
        Choice(("identity", "datainf")),
        _layerif,
        _preset("identity", "datainf", "identity"),
    ),
}
