"""A grid with every id filled in: the values that plan, results, explain and export read. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eval.benchmarks import Benchmark
from eval.spec import nearest
from orchestrator.grid.errors import InputError
from orchestrator.grid.parse import Grid
from pruning.spec import PruneSpec, describe, to_json
from workers.messages import Context, Gold

SHOWN_LABELS = 12
"""An error message lists at most this many of the grid's variants."""


@dataclass(frozen=True)
class Question:
    """One problem of one benchmark, rendered for one model."""

    benchmark: str
    problem_id: str
    prompt_ids: tuple[int, ...]
    gold: Gold
    typical_tokens: int
    """Thinking tokens that a draw of its benchmark roughly takes."""


@dataclass(frozen=True)
class Decoding:
    """A context and the token limits that its traces serve: all of them, or one with `independent_limits`."""

    context: Context
    limits: tuple[int, ...]


@dataclass(frozen=True)
class ResolvedVariant:
    """A variant of the grid with the ids of its patch and contexts, and its questions."""

    label: str
    """`wanda + uniform at 0.5`; with the calibration data where another variant differs in nothing else."""
    model_label: str
    """The model as the grid gives it."""
    model_path: str
    """The local folder of its checkpoint."""
    spec: PruneSpec
    patch_id: str
    patch_payload: dict[str, Any]
    """What `patch_id` is computed from."""
    decodings: tuple[Decoding, ...]
    """One, or one per limit with `independent_limits`."""
    questions: tuple[Question, ...]
    distinct: tuple[Question, ...]
    """The questions by prompt: the same prompt in two benchmarks is one draw."""
    prunable: int
    """Number of weights in the linear layers of the model's blocks, the ones that can be pruned."""
    line: int
    """Its line in the grid."""

    @property
    def full_label(self) -> str:
        """`model: label`, which tells the variants of several models apart."""
        return f"{self.model_label}: {self.label}"

    @property
    def dense(self) -> bool:
        return self.spec.is_dense


@dataclass(frozen=True)
class TraceRequest:
    """Traces that have to be drawn before the patches that are calibrated on them have a name."""

    name: str
    """Under which the store keeps them; from what was asked for."""
    grid: Grid
    """The sweep that draws them, with one seed."""
    tokens: int
    """How many tokens they need to have together."""
    variant: str
    """Whose calibration they are, for messages."""

    @property
    def what(self) -> str:
        return f"the traces of {self.grid.variants[0].model.path} on {self.grid.benchmarks[0].name}"


@dataclass(frozen=True)
class AwaitingVariant:
    """A variant of the grid that has no name yet: the traces that it is calibrated on are not made."""

    label: str
    model_label: str
    line: int
    requests: tuple[TraceRequest, ...]


@dataclass(frozen=True)
class ResolvedGrid:
    """A grid with every id filled in."""

    grid: Grid
    variants: tuple[ResolvedVariant, ...]
    benchmarks: tuple[Benchmark, ...]
    payloads: dict[str, dict[str, Any]]
    """Id -> what it is computed from."""
    awaiting: tuple[AwaitingVariant, ...] = ()
    """The variants that are missing in `variants`."""
    warnings: tuple[str, ...] = ()
    """What the user would probably not want."""

    @property
    def requests(self) -> tuple[TraceRequest, ...]:
        """The traces to be made, each once; the largest first, since its draws serve the others."""
        requests = {request.name: request for one in self.awaiting for request in one.requests}
        return tuple(sorted(requests.values(), key=lambda request: -request.tokens))

    @property
    def labels(self) -> dict[str, str]:
        """Patch id -> the label that people read; with the model where the grid has several."""
        several = len({variant.model_label for variant in self.variants}) > 1
        return {v.patch_id: v.full_label if several else v.label for v in self.variants}

    def dense_of(self, variant: ResolvedVariant) -> ResolvedVariant | None:
        """The dense variant of the same model, the baseline of every comparison."""
        return next((v for v in self.variants if v.dense and v.model_path == variant.model_path), None)


def find_variant(resolved: ResolvedGrid, name: str, option: str) -> ResolvedVariant:
    """The variant whose label, `model: label` or patch id is `name`. `option`: where the user gave it, for errors.

    Variants with the same content (a calibration file and its copy) are one. Raises InputError with the nearest label
    if there is none, and with what tells them apart if there are several.
    """
    matching = [v for v in resolved.variants if name in (v.label, v.full_label, v.patch_id)]
    if not matching:  # without its calibration data, a label may be that of several
        matching = [v for v in resolved.variants if name in (describe(v.spec), f"{v.model_label}: {describe(v.spec)}")]
    found = list({variant.patch_id: variant for variant in matching}.values())
    if not found and any(name in (one.label, f"{one.model_label}: {one.label}") for one in resolved.awaiting):
        raise InputError(
            f"{option} {name!r}: nothing is known of it yet, since the traces that it is calibrated on are not made; "
            f"`{resolved.grid.command('sweep')}` draws them first"
        )
    if not found:
        labels = list(dict.fromkeys(variant.label for variant in resolved.variants))
        known = [variant.full_label for variant in resolved.variants] if ": " in name else labels
        raise InputError(
            f"{option} {name!r}: {resolved.grid.source.name} has no such variant.{nearest(name, known)} Its variants "
            f"are {', '.join(labels[:SHOWN_LABELS])}{', ...' if len(labels) > SHOWN_LABELS else ''}"
        )
    if len(found) == 1:
        return found[0]
    if len({variant.model_label for variant in found}) == len(found):
        names = ", ".join(repr(variant.full_label) for variant in found)
        raise InputError(f"{option} {name!r}: several models have this variant; name one of {names}")
    first, *others = found
    ids = [first.patch_id, *(f"{other.patch_id} ({_difference(other, first)})" for other in others)]
    raise InputError(
        f"{option} {name!r}: {len(found)} variants have this label; give the patch id of one: {', '.join(ids)}"
    )


def _difference(ours: ResolvedVariant, theirs: ResolvedVariant) -> str:
    """`group row instead of matrix`."""
    one, other = (dict(_flat({"model": v.model_label} | to_json(v.spec))) for v in (ours, theirs))
    fields = [field for field in one | other if one.get(field) != other.get(field)]
    return "; ".join(f"{field} {one.get(field, 'none')} instead of {other.get(field, 'none')}" for field in fields)


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", item
