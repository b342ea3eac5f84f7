"""The only place where results get their names. Promise same-name-same-bytes.

A name is the hash of a payload, and a payload is made of content: digests of weights and data, token ids, and the
settings that change an answer. Never of paths, hardware, file names or the way a grid was written. Payloads are kept
beside the results, so that `explain` can say why two names differ.

Every field of every spec is declared IDENTITY or RUNTIME in `FIELD_ROLES`; a test fails for one that is neither, and
frozen test vectors fail if a name changes. A change of meaning is a new `VERSION`, never an edited vector.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from eval.benchmarks import Problem
from eval.formats import Tags, ThinkingFormat
from eval.spec import BudgetSpec, SamplingSpec
from pruning.spec import PruneSpec, to_json

VERSION = 1
DIGITS = 20
"""Hex digits of a name: 80 bits, so that a million names collide with a chance below 1e-12."""


class FieldRole(StrEnum):
    IDENTITY = "identity"
    RUNTIME = "runtime"
    """Cannot change an answer, or is a label, or is covered by content: a path by the digest of what it leads to."""


_I, _R = FieldRole.IDENTITY, FieldRole.RUNTIME

FIELD_ROLES: dict[str, dict[str, FieldRole]] = {
    "SamplingSpec": dict(temperature=_I, top_p=_I, top_k=_I, min_p=_I, seeds=_I),
    "BudgetSpec": dict(mode=_I, answer_tokens=_I, wait=_I, wait_text=_I, independent_limits=_I),
    "PromptSpec": dict(preset=_R, template=_R, system=_R),  # the rendered prompt's ids are the identity
    "ThinkingFormat": dict(
        name=_R, start=_I, end=_I, early_stop=_I, prefill_start=_I, newline_rule=_I, bridge=_I,
        answer_after_eos=_I, single_tokens=_R, reopens=_R,
    ),
    "CalibrationSpec": dict(data=_R, samples=_I, tokens=_I, seed=_I, windows=_I, compute=_I),
    "ModelEntry": dict(path=_R, format=_I, dtype=_I),
    "Runtime": dict(
        engines=_R, slots=_R, max_sequences=_R, in_flight=_R, commit_seconds=_R, tensor_parallel=_R,
        cpu_cache_mib=_R, gpu_memory_utilization=_R, attempts=_R, start_seconds=_R, silence_seconds=_R,
        stall_seconds=_R, store_seconds=_R, prune_seconds=_R,
        grader=_R, grader_processes=_R, grader_seconds=_R, tracking_uri=_R, experiment=_R,
        event_log=_R,
    ),
    # What pruning.spec.resolve leaves set changes the result; that is its contract.
    "PruneSpec": dict.fromkeys(PruneSpec.__dataclass_fields__, _I) | {"preset": _R},
}  # fmt: skip


def name_of(payload: Mapping[str, Any]) -> str:
    """The name of a payload. Raises TypeError for a value that has no one canonical spelling."""
    return hashlib.sha256(canonical(payload).encode()).hexdigest()[:DIGITS]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; refuses NaN, sets, and whatever else has no one spelling."""
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
    """The name of a rendered prompt: of its token ids."""
    return hashlib.sha256(",".join(map(str, prompt_ids)).encode()).hexdigest()[:DIGITS]


def gold_id(problem: Problem) -> str:
    """The name of what an answer is graded against."""
    return name_of({"answer": problem.answer, "kind": problem.kind, "choices": problem.choices})


def patch_payload(
    base_digest: str, spec: PruneSpec, data_digests: Mapping[str, str], tokenizer_digest: str | None
) -> dict[str, Any]:
    """What a patch is: the base's content, the resolved spec, and the content of the calibration data it reads.

    `data_digests` maps each of the spec's data fields (`calibration`, `influence_train`, ...) to its content's digest.
    """
    settings = to_json(spec)
    for field, digest in data_digests.items():
        settings[field] = {**settings[field], "data": digest}
    return {
        "version": VERSION,
        "what": "patch",
        "base": base_digest,
        "spec": settings,
        "tokenizer": tokenizer_digest,
    }


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
    """What the traces of a variant have in common, beside prompt and seed. `limit` only for independent decoding."""
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
    if style is not None and tags is not None and budget.mode != "none":
        payload |= {"opening": tags.opening, "end": style.end}
    if budget.wait:
        payload |= {"wait": budget.wait, "wait_text": budget.wait_text}
    return payload if limit is None else payload | {"limit": limit}


def answer_payload(budget: BudgetSpec, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
    """What the answers of a variant have in common, beside the trace and the cut."""
    payload: dict[str, Any] = {"version": VERSION, "what": "answer", "mode": budget.mode}
    if budget.mode == "none":
        return payload | ({"end": style.end} if style is not None else {})  # the answer is what follows it
    if style is None or tags is None:
        return payload
    return payload | {
        "answer_tokens": budget.answer_tokens,
        "early_stop": tags.early_stop,
        "bridge": tags.bridge,
        "newline": tags.newline,
        "after_eos": style.answer_after_eos,
    }
