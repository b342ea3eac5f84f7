"""Promise same-name-same-bytes: frozen names, every setting declared, only what changes an answer counts."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.formats import FORMATS, Tags, ThinkingFormat
from eval.problems import Problem
from eval.spec import BenchmarkSpec, BudgetSpec, PromptSpec, SamplingSpec
from orchestrator import identity
from orchestrator.grid.format import ModelEntry, Runtime
from orchestrator.identity import (
    FIELD_ROLES,
    FieldRole,
    answer_payload,
    canonical,
    context_payload,
    gold_id,
    name_of,
    patch_payload,
    prompt_id,
)
from pruning.resolve import resolve
from pruning.spec import CalibrationSpec, PruneSpec

SAMPLING = SamplingSpec(0.6, 0.95, 20, 0.05, (0, 1))
BUDGET = BudgetSpec("s1-legacy", answer_tokens=64, wait=2)
STYLE = FORMATS["s1"]
TAGS = Tags(opening=(1, 2), end=(3,), bridge=(3, 4), early_stop=(3, 5), newline=(6,), wait=(7,))
WANDA = resolve(PruneSpec("wanda", sparsity=0.5, calibration=CalibrationSpec("c4", samples=16, tokens=64)))


def patch(spec: PruneSpec = WANDA, base: str = "b" * 64, data: str = "d" * 64) -> dict[str, Any]:
    return patch_payload(base, spec, {"calibration": data} if spec.calibration else {}, "t" * 64)


def checkpoint(digest: str, path: str = "here", label: str | None = None) -> dict[str, Any]:
    spec = resolve(PruneSpec("checkpoint", path=path, label=label))
    return patch_payload("b" * 64, spec, {}, None, digest)


def context(
    sampling: SamplingSpec = SAMPLING,
    budget: BudgetSpec = BUDGET,
    style: ThinkingFormat | None = STYLE,
    tags: Tags | None = TAGS,
    dtype: str = "bfloat16",
    limit: int | None = None,
) -> dict[str, Any]:
    return context_payload("p" * 20, dtype, sampling, budget, style, tags, (9, 8), limit)


# --- frozen vectors: a name that changes orphans every result in every store. Raise identity.VERSION instead.

VECTORS = {
    "name": (name_of({"a": 1, "b": [1.5, None, True, "é"]}), "511f85c20f1450eabbf1"),
    "prompt": (prompt_id((1, 2, 30)), "c8d59cbf72ec63152179"),
    "gold": (gold_id(Problem("id", "text", "7")), "c6cc4b88e823ae349ffe"),
    "choice": (gold_id(Problem("id", "text", "B", ("x", "y"), None, "choice")), "2784e4211cd87cf0d4ba"),
    "dense": (
        name_of(patch_payload("b" * 64, resolve(PruneSpec("dense")), {}, None)),
        "6be9bcb38ba0933c3ab1",
    ),
    "wanda": (name_of(patch()), "db055fe33a789d383963"),
    "magnitude": (name_of(patch(resolve(PruneSpec("magnitude", sparsity=0.2)))), "13c19bf95cae7a142327"),
    "checkpoint": (name_of(checkpoint("c" * 64)), "93cd9e142b58099cb56d"),
    "context": (name_of(context()), "6f7aed38ac11789fcdf8"),
    "greedy": (name_of(context(replace(SAMPLING, temperature=0.0))), "4e601b279362d33fbc1d"),
    "independent": (name_of(context(limit=512)), "ba87a3972a1cc5368376"),
    "answer": (name_of(answer_payload(BUDGET, STYLE, TAGS)), "5c387ebb7520b6ecb773"),
    "whole response": (name_of(answer_payload(BudgetSpec("none"), None, None)), "180fff0738b5cb6a8836"),
    "response after a tag": (
        name_of(answer_payload(BudgetSpec("none"), STYLE, TAGS)),
        "75eb9feea879d1c61305",
    ),
}


@pytest.mark.parametrize("what", VECTORS)
def test_name_of_a_known_payload_never_changes(what: str) -> None:
    found, frozen = VECTORS[what]
    assert identity.VERSION == 1, "a new version needs vectors of its own, beside these"
    assert found == frozen


# --- every setting is declared --------------------------------------------------------------------------

DECLARED: dict[str, set[str]] = {
    **{
        spec.__name__: {field.name for field in fields(spec)}
        for spec in (SamplingSpec, BudgetSpec, PromptSpec, BenchmarkSpec, ThinkingFormat, CalibrationSpec, PruneSpec)
    },
    **{model.__name__: set(model.model_fields) for model in (ModelEntry, Runtime)},
}


@pytest.mark.parametrize("name", DECLARED)
def test_every_field_is_declared_identity_or_runtime(name: str) -> None:
    undeclared, gone = DECLARED[name] - FIELD_ROLES[name].keys(), FIELD_ROLES[name].keys() - DECLARED[name]
    assert not undeclared, f"declare {sorted(undeclared)} of {name} in orchestrator.identity.FIELD_ROLES"
    assert not gone, f"{name} has no {sorted(gone)} any more; remove them from orchestrator.identity.FIELD_ROLES"
    assert all(isinstance(role, FieldRole) for role in FIELD_ROLES[name].values())


def test_roles_declare_no_spec_that_is_not_tested_here() -> None:
    assert FIELD_ROLES.keys() == DECLARED.keys()


# --- identity changes the name, runtime does not --------------------------------------------------------


def roles(name: str, role: FieldRole) -> list[str]:
    return [field for field, declared in FIELD_ROLES[name].items() if declared is role]


NESTED = ("calibration", "influence_train", "influence_validation")
OTHER: Mapping[str, Any] = {
    "temperature": 0.7, "top_p": 0.5, "top_k": 5, "min_p": 0.5, "mode": "native-strict", "wait": 1,
    "wait_text": "Hmm", "single_tokens": True, "reopens": ("<again>",), "name": "another",
}  # fmt: skip


@pytest.mark.parametrize("field", [f for f in roles("SamplingSpec", FieldRole.IDENTITY) if f != "seeds"])
def test_sampling_setting_changes_the_trace_s_name(field: str) -> None:
    assert name_of(context(replace(SAMPLING, **{field: OTHER[field]}))) != name_of(context())


def test_seeds_are_named_by_the_draw_and_not_by_its_context() -> None:
    assert name_of(context(replace(SAMPLING, seeds=(7,)))) == name_of(context())


@pytest.mark.parametrize("field", ["top_p", "top_k", "min_p"])
def test_greedy_decoding_ignores_the_filters(field: str) -> None:
    greedy = replace(SAMPLING, temperature=0.0)
    assert name_of(context(replace(greedy, **{field: OTHER[field]}))) == name_of(context(greedy))


@pytest.mark.parametrize("field", ["mode", "wait", "wait_text"])
def test_budget_setting_of_the_thinking_changes_the_trace_s_name(field: str) -> None:
    assert name_of(context(budget=replace(BUDGET, **{field: OTHER[field]}))) != name_of(context())


def test_answer_length_changes_the_answer_s_name_and_not_the_trace_s() -> None:
    longer = replace(BUDGET, answer_tokens=65)
    assert name_of(context(budget=longer)) == name_of(context())
    assert name_of(answer_payload(longer, STYLE, TAGS)) != name_of(answer_payload(BUDGET, STYLE, TAGS))


def test_wait_text_without_a_wait_changes_nothing() -> None:
    calm = replace(BUDGET, wait=0)
    assert name_of(context(budget=replace(calm, wait_text="Hmm"))) == name_of(context(budget=calm))


@pytest.mark.parametrize("limit", [512, 1024])
def test_independent_limits_have_contexts_of_their_own(limit: int) -> None:
    assert name_of(context(limit=limit)) not in {name_of(context()), name_of(context(limit=limit + 1))}


@pytest.mark.parametrize("field", roles("ThinkingFormat", FieldRole.RUNTIME))
def test_format_s_labels_change_no_name(field: str) -> None:
    other = replace(STYLE, **{field: OTHER[field]})
    assert name_of(context(style=other)) == name_of(context())
    assert name_of(answer_payload(BUDGET, other, TAGS)) == name_of(answer_payload(BUDGET, STYLE, TAGS))


def test_format_s_end_and_opening_change_the_trace_s_name() -> None:
    names = {
        name_of(context(style=replace(STYLE, end="<other>"))),
        name_of(context(tags=replace(TAGS, opening=()))),
    }
    assert len(names | {name_of(context())}) == 3


def test_format_s_end_changes_the_answer_s_name_where_the_answer_is_what_follows_it() -> None:
    plain, other = BudgetSpec("none"), replace(STYLE, end="<other>")
    assert name_of(answer_payload(plain, other, TAGS)) != name_of(answer_payload(plain, STYLE, TAGS))


def test_answer_after_the_end_of_sequence_changes_the_answer_s_name() -> None:
    other = replace(STYLE, answer_after_eos=not STYLE.answer_after_eos)
    assert name_of(answer_payload(BUDGET, other, TAGS)) != name_of(answer_payload(BUDGET, STYLE, TAGS))


@pytest.mark.parametrize("field", ["bridge", "early_stop", "newline"])
def test_forced_text_changes_the_answer_s_name_and_not_the_trace_s(field: str) -> None:
    other = replace(TAGS, **{field: (11, 12)})
    assert name_of(context(tags=other)) == name_of(context())
    assert name_of(answer_payload(BUDGET, STYLE, other)) != name_of(answer_payload(BUDGET, STYLE, TAGS))


def test_dtype_changes_the_trace_s_name() -> None:
    assert name_of(context(dtype="float32")) != name_of(context())


@pytest.mark.parametrize("field", roles("CalibrationSpec", FieldRole.IDENTITY))
def test_calibration_setting_changes_the_patch_s_name(field: str) -> None:
    assert WANDA.calibration is not None
    others = {"samples": 17, "tokens": 65, "seed": 1, "windows": "packed", "compute": "float32", "apart": True}
    other = others[field]
    assert name_of(patch(replace(WANDA, calibration=replace(WANDA.calibration, **{field: other})))) != name_of(patch())


def test_calibration_data_is_named_by_its_content_and_not_by_its_path() -> None:
    assert WANDA.calibration is not None
    moved = replace(WANDA, calibration=replace(WANDA.calibration, data="elsewhere.jsonl"))
    assert name_of(patch(moved)) == name_of(patch())
    assert name_of(patch(data="e" * 64)) != name_of(patch())


def test_checkpoint_is_named_by_its_content_and_not_by_its_path_or_label() -> None:
    names = {name_of(checkpoint("c" * 64, path, label)) for path in ("here", "there") for label in (None, "mine")}
    assert names == {name_of(checkpoint("c" * 64))}
    assert name_of(checkpoint("d" * 64)) not in names
    assert "here" not in canonical(checkpoint("c" * 64))


def test_base_weights_change_the_patch_s_name() -> None:
    assert name_of(patch(base="c" * 64)) != name_of(patch())


@pytest.mark.parametrize("field", [f for f in roles("PruneSpec", FieldRole.IDENTITY) if f not in NESTED])
def test_pruning_knob_that_is_set_changes_the_patch_s_name(field: str) -> None:
    assert name_of(patch(replace(WANDA, **{field: "other"}))) != name_of(patch())


@pytest.mark.parametrize("field", roles("PruneSpec", FieldRole.RUNTIME))
def test_way_a_spec_was_written_changes_no_name(field: str) -> None:
    assert name_of(patch(replace(WANDA, **{field: "other"}))) == name_of(patch())
    plain = PruneSpec("wanda", sparsity=0.5, calibration=WANDA.calibration)
    assert name_of(patch(resolve(plain))) == name_of(patch())
    assert "preset" not in patch(resolve(replace(plain, preset=None)))["spec"]


@given(st.lists(st.integers(0, 10**6), max_size=6), st.lists(st.integers(0, 10**6), max_size=6))
def test_prompts_share_a_name_only_if_they_are_equal(one: list[int], other: list[int]) -> None:
    assert (prompt_id(one) == prompt_id(other)) == (one == other)


# --- one spelling ---------------------------------------------------------------------------------------


def test_number_has_one_name_however_it_is_spelled() -> None:
    assert name_of({"temperature": 1}) == name_of({"temperature": 1.0})
    assert name_of({"temperature": 0}) == name_of({"temperature": -0.0})
    assert name_of({"x": True}) != name_of({"x": 1})


def test_order_of_keys_and_kind_of_sequence_change_nothing() -> None:
    assert name_of({"a": (1, 2), "b": 3}) == name_of({"b": 3, "a": [1, 2]})


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, frozenset(), b"bytes", object(), {1: "key"}])
def test_value_without_one_spelling_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        name_of({"x": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equal_values_share_a_spelling_and_others_do_not(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (_typed(one) == _typed(other))


def _typed(value: Any) -> Any:
    """`value` such that == tells True from 1."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return {key: _typed(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_name_is_long_enough_for_many_cells() -> None:
    assert len(name_of({})) == identity.DIGITS >= 16
    assert set(name_of({})) <= set("0123456789abcdef")
