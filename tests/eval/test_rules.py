"""What follows from the rules of a variant: the room for a trace, its stops, and where thinking ended."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.budget import start
from eval.draws import DrawJob
from eval.formats import ThinkingFormat
from eval.modes import MODES, make_rules
from eval.rules import Rules, longest_trace, natural_end, room_to_think, thinking_prompt, trace_stops
from eval.spec import BudgetSpec
from tests.support.scripted_model import EOS, PieceCodec

WHOLE = PieceCodec()
SPLIT = PieceCodec(hidden=frozenset({"<think>", "</think>", "<|im_start|>"}))
SPOKEN = ThinkingFormat(name="spoken", start="<think>", end="</think>", early_stop="stop now</think>\n")
A, B, END = WHOLE.ids["a"], WHOLE.ids["b"], WHOLE.ids["</think>"]


def rules_for(mode: str, codec: PieceCodec = WHOLE, context: int = 400, **budget) -> Rules:
    if MODES[mode].needs_answer_tokens:
        budget.setdefault("answer_tokens", 4)
    return make_rules(BudgetSpec(mode, **budget), codec, frozenset({EOS}), context, SPOKEN)


def job(prompt_tokens: int, *limits: int) -> DrawJob:
    return DrawJob("p1", (A,) * prompt_tokens, 7, limits)


def value_or_refusal(compute: Callable[[], int]) -> int | str:
    try:
        return compute()
    except ValueError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(MODES)),
    st.sampled_from([WHOLE, SPLIT]),
    st.integers(1, 300),
    st.integers(1, 200),
    st.integers(1, 400),
    st.integers(1, 80),
)
def test_room_is_what_a_draw_without_a_prior_trace_is_given(mode, codec, context, prompt_tokens, limit, answer_tokens):
    """The planner refuses limits by the room alone, without beginning a draw."""
    capped = {"answer_tokens": answer_tokens} if MODES[mode].needs_answer_tokens else {}
    rules, one = rules_for(mode, codec, context, **capped), job(prompt_tokens, limit)
    room = value_or_refusal(lambda: room_to_think(rules, one))
    begun = value_or_refusal(lambda: start(rules, one).asks[0].max_tokens)
    assert begun == (min(limit, room) if isinstance(room, int) else room)
    far = replace(one, limits=(10**6,))
    assert value_or_refusal(lambda: start(rules, far).asks[0].max_tokens) == room
    assert value_or_refusal(lambda: longest_trace(rules, one)) == begun


@pytest.mark.parametrize("mode", MODES)
def test_largest_trace_forced_text_and_answer_fill_the_context_and_no_more(mode):
    rules, one = rules_for(mode, context=170), job(5, 10**6)
    reserved = rules.mode.reserved_tokens(rules)
    assert 5 + room_to_think(rules, one) + reserved == 170
    assert (reserved > 0) == rules.mode.answer_phase


def test_opening_stands_between_prompt_and_trace():
    assert thinking_prompt(rules_for("native-strict"), (A, B)) == (A, B)
    assert thinking_prompt(rules_for("none"), (A, B)) == (A, B)
    assert thinking_prompt(rules_for("s1-legacy"), (A, B)) == (A, B, *WHOLE.encode("<|im_start|>think"))


@pytest.mark.parametrize(
    ("mode", "codec", "stops"),
    [
        ("native-strict", WHOLE, (tuple(sorted((EOS, END))), ())),
        ("native-strict", SPLIT, ((EOS,), ("</think>",))),
        ("none", WHOLE, ((EOS,), ())),
        ("none", SPLIT, ((EOS,), ())),
    ],
)
def test_a_trace_stops_at_the_end_tag_where_an_answer_phase_follows(mode, codec, stops):
    assert trace_stops(rules_for(mode, codec)) == stops


@pytest.mark.parametrize(
    ("mode", "trace", "end"),
    [
        ("native-strict", (A, A), None),
        ("native-strict", (A, END, A, EOS), (1, 2)),
        ("native-strict", (A, EOS, END), (1, 2)),
        ("none", (A, END, A), None),
        ("none", (A, END, A, EOS), (3, 4)),
    ],
)
def test_natural_end_is_the_first_mark_that_the_mode_knows(mode, trace, end):
    assert natural_end(rules_for(mode), trace) == end


def test_natural_end_of_a_tag_of_several_tokens_covers_all_of_them():
    trace = tuple(SPLIT.ids[piece] for piece in ("a", "x</", "think", ">y", "a"))
    assert natural_end(rules_for("native-strict", SPLIT), trace) == (1, 4)
