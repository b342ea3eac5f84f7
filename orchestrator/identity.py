"""The only place that hashes: patches, contexts, prompts and golds get their names here. Promise same-name-same-bytes.

A name is the hash of a payload, and a payload is content: digests of weights and data, token ids, and the settings that
change an answer; never paths, hardware, file names or the way a grid was written. Payloads are stored beside the
results, so that `explain` can say why two names differ. Each budget mode says what it adds to a payload
(`eval.rules.BudgetMode`).

Every field of every spec is declared IDENTITY or RUNTIME in `FIELD_ROLES`. A test fails for a field that is not
declared, and frozen vectors fail if a name changes. A change of meaning is a new `VERSION`, never an edited vector.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from eval.formats import Tags, ThinkingFormat
from eval.modes import MODES
from eval.problems import Problem
from eval.spec import BudgetSpec, SamplingSpec
from pruning.spec import PruneSpec, to_json

VERSION = 1
DIGITS = 20
"""Hex digits of a name: 80 bits, so that a million names collide with a chance below 1e-12."""


class FieldRole(StrEnum):
    """Whether a setting is part of a result's name."""

    IDENTITY = "identity"
    """It can change an answer, so it is part of the name."""
    RUNTIME = "runtime"
    """It cannot change an answer, is a label, or is covered by content, as a path by the digest of what is there."""


_I, _R = FieldRole.IDENTITY, FieldRole.RUNTIME

FIELD_ROLES: dict[str, dict[str, FieldRole]] = {
    "SamplingSpec": dict(temperature=_I, top_p=_I, top_k=_I, min_p=_I, seeds=_I),
    "BudgetSpec": dict(mode=_I, answer_tokens=_I, wait=_I, wait_text=_I, independent_limits=_I),
    "PromptSpec": dict(preset=_R, template=_R, system=_R),  # the rendered prompt's ids are the identity
    "BenchmarkSpec": dict(name=_R, first=_R, sample=_R, seed=_R, rows=_R, columns=_R),  # which prompts are asked
    "ThinkingFormat": dict(
        name=_R, start=_I, end=_I, early_stop=_I, prefill_start=_I, newline_rule=_I, bridge=_I,
        answer_after_eos=_I, single_tokens=_R, reopens=_R,
    ),
    "CalibrationSpec": dict(data=_R, samples=_I, tokens=_I, seed=_I, windows=_I, compute=_I, apart=_I),
    "ModelEntry": dict(path=_R, format=_I, dtype=_I),
    "Runtime": dict(
        engines=_R, slots=_R, max_sequences=_R, in_flight=_R, commit_seconds=_R, tensor_parallel=_R,
        cpu_cache_mib=_R, gpu_memory_utilization=_R, attempts=_R, start_seconds=_R, silence_seconds=_R,
        stall_seconds=_R, store_seconds=_R, prune_seconds=_R,
        grader=_R, grader_processes=_R, grader_seconds=_R, tracking_uri=_R, experiment=_R,
        event_log=_R,
    ),
    # Every field that resolving a spec leaves set changes the result, but for what only refuses one, and labels.
    "PruneSpec": dict.fromkeys(PruneSpec.__dataclass_fields__, _I) | dict(preset=_R, tie_limit=_R, path=_R, label=_R),
}  # fmt: skip


def name_of(payload: Mapping[str, Any]) -> str:
    """The name of a payload, `DIGITS` hex digits. Raises TypeError for a value without a canonical spelling."""
    return hashlib.sha256(canonical(payload).encode()).hexdigest()[:DIGITS]


def canonical(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces.

    Raises TypeError or ValueError for what has no canonical spelling, such as sets and NaN.
    """
    return json.dumps(_strict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _strict(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # 1.0 and 1 are one setting, however the YAML spelled it.
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"an identity payload has the keys {list(value)}; use strings")
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    raise TypeError(f"{value!r} cannot be part of an identity; use strings, numbers, lists and mappings")


def prompt_id(prompt_ids: Sequence[int]) -> str:
    """The name of a rendered prompt, from its token ids."""
    return hashlib.sha256(",".join(map(str, prompt_ids)).encode()).hexdigest()[:DIGITS]


def gold_id(problem: Problem) -> str:
    """The name of what answers are graded against: answer, kind and choices."""
    return name_of({"answer": problem.answer, "kind": problem.kind, "choices": problem.choices})


def patch_payload(
    base_digest: str,
    spec: PruneSpec,
    data_digests: Mapping[str, str],
    tokenizer_digest: str | None,
    checkpoint_digest: str | None = None,
    packages: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What determines a patch: the base's content, the resolved spec, and the content of what the spec names.

    `data_digests` maps each data field of the spec (`calibration`, `influence_train`, ...) to its content's digest.
    `checkpoint_digest`: of the checkpoint at the spec's `path`, if it has one. `packages`: the other packages that the
    spec's method and allocator are of, with their versions.
    """
    settings = {field: value for field, value in to_json(spec).items() if FIELD_ROLES["PruneSpec"][field] is _I}
    for field, digest in data_digests.items():
        settings[field] = {**settings[field], "data": digest}
    if checkpoint_digest is not None:
        settings["path"] = checkpoint_digest
    return {
        "version": VERSION,
        "what": "patch",
        "base": base_digest,
        "spec": settings,
        "tokenizer": tokenizer_digest,
    } | ({"packages": dict(packages)} if packages else {})


def context_payload(
    patch_id: str,
    dtype: str,
    sampling: SamplingSpec,
    budget: BudgetSpec,
    style: ThinkingFormat | None,
    tags: Tags | None,
    eos_ids: Sequence[int],
    limit: int | None,
) -> dict[str, Any]:
    """What determines the traces of a variant besides prompt and seed. `limit` is for independent decoding only."""
    drawn = {k: v for k, v in asdict(sampling).items() if k != "seeds"}
    if sampling.temperature == 0:
        drawn = {"temperature": 0}
    payload: dict[str, Any] = {
        "version": VERSION,
        "what": "trace",
        "patch": patch_id,
        "dtype": dtype,
        "sampling": drawn,
        "mode": budget.mode,
        "eos": sorted(eos_ids),
    }
    payload |= MODES[budget.mode].trace_identity(style, tags)
    if budget.wait:
        payload |= {"wait": budget.wait, "wait_text": budget.wait_text}
    return payload if limit is None else payload | {"limit": limit}


def answer_payload(budget: BudgetSpec, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
    """What determines the answers of a variant besides the trace and the cut."""
    payload = {"version": VERSION, "what": "answer", "mode": budget.mode}
    return payload | MODES[budget.mode].answer_identity(budget, style, tags)
