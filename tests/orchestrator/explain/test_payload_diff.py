"""Payloads compared field by field: exactly what differs is reported, in words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.explain.payload_diff import differences

DIGEST = {letter: letter * 64 for letter in "abcdef"}


def patch(base: str = DIGEST["a"], tokenizer: str | None = DIGEST["b"], **spec: Any) -> dict[str, Any]:
    calibration = {"data": DIGEST["c"], "samples": 64, "compute": "stored"}
    settings = {"method": "wanda", "sparsity": 0.2, "calibration": calibration} | spec
    return {"version": 1, "what": "patch", "base": base, "spec": settings, "tokenizer": tokenizer}


def context(patch_id: str = "p", **fields: Any) -> dict[str, Any]:
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    whole = {"version": 1, "what": "trace", "patch": patch_id, "dtype": "bfloat16", "sampling": sampling}
    return whole | {"mode": "native-strict", "eos": [2], "opening": (1,), "end": "</think>"} | fields


def words(ours: dict[str, Any], theirs: dict[str, Any], **patches: dict[str, Any]) -> list[str]:
    return [one.words for one in differences(ours, theirs, patches.get)]


HOT, COOL = {"temperature": 1.0, "top_p": 0.9}, {"temperature": 0.6, "top_p": 0.9}


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (context(sampling=COOL), context(sampling=HOT), ["temperature 0.6 instead of 1.0"]),
        (context(sampling={"temperature": 0}), context(sampling=HOT), ["temperature 0 instead of 1.0"]),
        (context(dtype="float16"), context(), ["dtype float16 instead of bfloat16"]),
        (context(limit=512), context(), ["decoded for limit 512 alone instead of once for all limits"]),
        (context(wait=2, wait_text="Wait"), context(), ["waits 2 instead of none"]),
        (context(opening=[1]), context(opening=(1,)), []),
        (patch(sparsity=0.2), patch(sparsity=0.1), ["sparsity 0.2 instead of 0.1"]),
        (patch(base=DIGEST["d"]), patch(), ["base weights differ (dddddddd.. instead of aaaaaaaa..)"]),
        (patch(tokenizer=DIGEST["e"]), patch(), ["tokenizer differs (eeeeeeee.. instead of bbbbbbbb..)"]),
        (
            patch(method="checkpoint", path=DIGEST["f"]),
            patch(method="checkpoint", path=DIGEST["e"]),
            ["the checkpoint's weights differ (ffffffff.. instead of eeeeeeee..)"],
        ),
        (
            patch(calibration={"data": DIGEST["f"], "samples": 64, "compute": "stored"}),
            patch(),
            ["calibration data differ (content sha256 ffffffff.. instead of cccccccc..)"],
        ),
        (
            patch(calibration={"data": "c4", "samples": 32, "compute": "stored"}),
            patch(),
            ["calibration data c4 instead of cccccccc..", "calibration samples 32 instead of 64"],
        ),
        (patch(calibration=None, tokenizer=None), patch(), ["calibration is set there only"]),
    ],
)
def test_difference_is_told_in_words(ours: dict[str, Any], theirs: dict[str, Any], said: list[str]) -> None:
    assert words(ours, theirs) == said


def test_patch_that_a_context_names_is_compared_in_its_place() -> None:
    apart = words(context("p", sampling=COOL), context("q", sampling=HOT), p=patch(), q=patch(sparsity=0.5))
    assert apart == ["sparsity 0.2 instead of 0.5", "temperature 0.6 instead of 1.0"]


def test_patch_whose_payload_is_not_known_is_told_by_its_id_alone() -> None:
    (said,) = words(context("p"), context("q"), p=patch())
    assert said == "patch p instead of q (not both of their payloads are in the store)"


LEAVES = {
    "version": st.integers(2, 9),
    "dtype": st.sampled_from(["float16", "float32"]),
    "mode": st.just("none"),
    "eos": st.lists(st.integers(3, 9), min_size=1),
    "sampling.temperature": st.floats(0.1, 0.9),
    "sampling.top_k": st.integers(1, 50),
    "patch.spec.sparsity": st.floats(0.3, 0.9),
    "patch.spec.calibration.samples": st.integers(65, 512),
    "patch.base": st.just(DIGEST["f"]),
}


@given(st.sets(st.sampled_from(sorted(LEAVES))), st.data())
def test_exactly_the_changed_fields_are_told_and_both_ways_alike(changed: set[str], data: st.DataObject) -> None:
    ours, mine = context("p"), patch()
    theirs, other = context("q"), patch()
    for field in changed:
        *path, last = field.split(".")
        place: Any = other if path[:1] == ["patch"] else theirs
        for step in path:
            place = place if step == "patch" else place[step]
        place[last] = data.draw(LEAVES[field], label=field)
    patches = {"p": mine, "q": other}
    forth = differences(ours, theirs, patches.get)
    back = differences(theirs, ours, patches.get)
    assert {one.field for one in forth} == changed
    assert {(one.field, one.ours, one.theirs) for one in forth if one.field != "eos"} == {
        (one.field, one.theirs, one.ours) for one in back if one.field != "eos"
    }
