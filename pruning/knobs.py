"""The table of knobs: those that methods share, and each method's and allocator's own.

Order matters: a default may look at the knobs above its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pruning.allocators import ALLOCATORS
from pruning.methods import METHODS
from pruning.spec import Choice, Default, Fraction, Knob, PruneSpec, by_preset

_PAPER: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("wanda", "layerif"): {"group": "matrix", "propagate": "dense"},
    ("magnitude", "owl"): {"selection": "exact"},
    ("magnitude", "layerif"): {"selection": "exact"},
}
"""Method and allocator -> where arXiv 2604.25098's code departs from the method's own values."""


def _of_method(knob: str, default: Default) -> Default:
    """The method's own default, unless preset 'paper' departs from it."""

    def value(preset: str, spec: PruneSpec) -> Any:
        quirks = _PAPER.get((spec.method, spec.allocator or ""), {}) if preset == "paper" else {}
        return quirks[knob] if knob in quirks else default(preset, spec)

    return value


_GROUP: Final = Knob(
    "the weights ranked together; unstructured methods that score weights",
    Choice(("row", "matrix", "layer", "model")),
    _of_method("group", lambda preset, spec: METHODS[spec.method].group),
)
_SELECTION: Final = Knob(
    "exact count or threshold; unstructured methods",
    Choice(("exact", "threshold")),
    _of_method("selection", lambda preset, spec: METHODS[spec.method].selection),
)
_TIE_LIMIT: Final = Knob(
    "share of a block that may fall beyond the number asked for; threshold selection",
    Fraction(0, 1),
    by_preset(0.005, 1.0, 1.0),
    lambda spec: spec.selection == "threshold",
)
_PROPAGATE: Final = Knob(
    "whose outputs the next block sees; calibrated methods",
    Choice(("pruned", "dense")),
    _of_method("propagate", lambda preset, spec: "pruned"),
)


def knobs_of(spec: PruneSpec) -> dict[str, Knob]:
    """The knobs that mean something for a spec of known method and allocator, in order of resolution."""
    method = METHODS[spec.method]
    taken: dict[str, Knob] = {}
    if method.score is not None and spec.pattern is None:
        taken["group"] = _GROUP
    if method.masks and spec.pattern is None:
        taken["selection"] = _SELECTION
    if method.score is not None and spec.pattern is None:
        taken["tie_limit"] = _TIE_LIMIT
    if method.masks and method.calibrated:
        taken["propagate"] = _PROPAGATE
    taken |= method.knobs
    if spec.allocator is not None:
        taken |= ALLOCATORS[spec.allocator].knobs
    return taken


def _all_knobs() -> Iterator[tuple[str, Knob]]:
    shared = {"group": _GROUP, "selection": _SELECTION, "tie_limit": _TIE_LIMIT, "propagate": _PROPAGATE}
    yield from shared.items()
    for method in METHODS.built_in.values():
        yield from method.knobs.items()
    for allocator in ALLOCATORS.built_in.values():
        yield from allocator.knobs.items()


KNOBS: Final[Mapping[str, Knob]] = dict(_all_knobs())
"""Every knob by name. A knob of two allocators means the same in both; only its default may differ."""
