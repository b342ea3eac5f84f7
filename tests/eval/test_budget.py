"""The budget-forcing state machine: exact at every edge, and the same draw however it is decoded."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.budget import advance, start
from eval.draws import Answer, Completion, Draw, DrawJob, PriorTrace, answer_for
from eval.formats import FORMATS, ThinkingFormat
from eval.modes import make_rules
from eval.rules import Rules, derived_seed
from eval.spec import BudgetSpec
from tests.support.scripted_model import (
    EOS,
    PieceCodec,
    Script,
    ScriptedModel,
    independent_jobs,
    owed_limits,
    run,
)

CODEC = PieceCodec()
WHOLE_TAGS = frozenset({"<think>", "</think>", "<|im_start|>"})
SPLIT = PieceCodec(hidden=WHOLE_TAGS)
IDS = CODEC.ids
A, END, THINK, IM, NEWLINE = IDS["a"], IDS["</think>"], IDS["<think>"], IDS["<|im_start|>"], IDS["\n"]
PROMPT = (IDS["<user>"], IDS["7"], IDS["<asst>"])
SPOKEN = ThinkingFormat(name="spoken", start="<think>", end="</think>", early_stop="stop now</think>\n")
STRICT = BudgetSpec("native-strict", answer_tokens=4)
LEGACY = BudgetSpec("s1-legacy")


def rules_for(budget: BudgetSpec, codec: PieceCodec = CODEC, context: int = 400, style=None) -> Rules:
    if style is None and budget.mode == "native-strict":
        style = SPOKEN
    return make_rules(budget, codec, frozenset({EOS}), context, style)


def job(*limits: int, prior: PriorTrace | None = None, seed: int = 7) -> DrawJob:
    return DrawJob("p1", PROMPT, seed, limits, prior)


def by_cut(draw: Draw) -> dict[int, Answer]:
    return {answer.cut: answer for answer in draw.answers}


# --- edges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "forced", "cut"),
    [(4, True, 4), (5, False, 5), (6, False, 5)],
    ids=["end-one-after-limit", "end-at-limit", "end-one-before-limit"],
)
def test_end_tag_around_the_limit(limit, forced, cut):
    model = Script(trace=(THINK, A, A, A, END, A, A), answer=(A, EOS))
    draw, asked = run(rules_for(STRICT), job(limit), model.complete)
    (answer,) = draw.answers
    assert (answer.forced, answer.cut, answer.thinking_tokens) == (forced, cut, cut)
    assert draw.trace_ids == (THINK, A, A, A, END)[:cut]
    tail = tuple(CODEC.encode("stop now</think>\n")) if forced else ()
    assert asked[1].prompt_ids == PROMPT + draw.trace_ids + tail


def test_natural_end_is_told_from_ids_even_when_the_engine_says_length():
    rules = rules_for(STRICT)
    step = start(rules, job(3))
    step = advance(rules, step.state, "trace", Completion((A, A, END), "length"))
    assert step.state.ended
    assert step.asks[0].prompt_ids == (*PROMPT, A, A, END)


def test_stop_inside_a_multi_token_tag_is_a_cut_and_the_ids_are_kept():
    pieces = tuple(SPLIT.ids[piece] for piece in ("a", "x</", "think", ">y", "a"))
    rules = rules_for(STRICT, SPLIT)
    for limit in (2, 3):
        draw, asked = run(rules, job(limit), Script(pieces, (A, EOS)).complete)
        assert draw.answers[0].forced
        assert asked[1].prompt_ids[: 3 + limit] == PROMPT + pieces[:limit]
    draw, asked = run(rules, job(4), Script(pieces, (A, EOS)).complete)
    assert not draw.answers[0].forced
    assert draw.trace_ids == pieces[:4], "the token that completes the tag belongs to the trace, text and all"
    assert asked[0].stop_texts == ("</think>",)


def test_tag_that_straddles_a_stored_trace_is_found_although_the_engine_cannot_see_it():
    pieces = tuple(SPLIT.ids[piece] for piece in ("a", "</", "think", ">", "a", "a"))
    rules = rules_for(STRICT, SPLIT)
    prior = PriorTrace(pieces[:2], ended=False, limit=2)
    step = start(rules, job(6, prior=prior))
    step = advance(rules, step.state, "trace", Completion(pieces[2:], "length"))
    assert step.state.trace == pieces[:4]
    assert step.state.ended


def test_empty_thinking_and_limit_zero():
    draw, asked = run(rules_for(STRICT), job(0, 3), Script((END,), (A, EOS)).complete)
    answers = by_cut(draw)
    assert answers[0].forced
    assert not answers[1].forced
    assert answer_for(3, 1, True, answers) is answers[1]
    assert asked[1].prompt_ids == PROMPT + tuple(CODEC.encode("stop now</think>\n"))


def test_limit_zero_alone_asks_for_no_trace():
    draw, asked = run(rules_for(STRICT), job(0), Script((), (A, EOS)).complete)
    assert [ask.name for ask in asked] == ["answer@0"]
    assert (draw.trace_ids, draw.ended, draw.limit) == ((), False, 0)


def test_end_of_sequence_inside_native_thinking_is_the_whole_response():
    draw, asked = run(rules_for(STRICT), job(2, 9), Script((THINK, A, IDS["7"], EOS), (A, EOS)).complete)
    natural = by_cut(draw)[4]
    assert (natural.text, natural.token_ids, natural.forced) == ("<think>a7", (), False)
    assert [ask.name for ask in asked] == ["trace", "answer@2"]


def test_answer_cap_and_context_are_told_apart():
    capped, _ = run(rules_for(STRICT), job(2), Script((A, A), (A,) * 50).complete)
    assert (capped.answers[0].finish_reason, capped.answers[0].cap_hit) == ("length", True)
    assert capped.answers[0].token_ids == (A,) * 4
    open_ended, asked = run(rules_for(LEGACY, context=130), job(2), Script((A, A), (A,) * 500).complete)
    assert open_ended.answers[0].finish_reason == "context"
    assert len(asked[-1].prompt_ids) + asked[-1].max_tokens == 130


def test_exhausted_context_forces_an_answer_and_ends_the_trace():
    rules = rules_for(STRICT, context=20)  # 20 - 3 prompt - 3 early stop - 4 answer = 10
    draw, asked = run(rules, job(6, 50, 60), Script((A,) * 99, (A, EOS)).complete)
    assert asked[0].max_tokens == 20 - len(PROMPT) - len(rules.tags.early_stop) - 4
    assert draw.ended
    assert [(answer.cut, answer.forced) for answer in draw.answers] == [
        (6, True),
        (asked[0].max_tokens, True),
    ]
    assert all(len(ask.prompt_ids) + ask.max_tokens <= 20 for ask in asked)
    prior = PriorTrace(draw.trace_ids, draw.ended, draw.limit)
    assert owed_limits(prior, set(by_cut(draw)), (6, 50, 60, 1000)) == ()


def test_prompt_longer_than_the_context_is_refused_by_name():
    with pytest.raises(ValueError, match=r"problem 'p1'.*3 tokens.*context of 8.*answer_tokens"):
        start(rules_for(STRICT, context=8), job(4))


def test_reopened_thinking_is_recorded():
    draw, _ = run(rules_for(STRICT), job(1), Script((A,), (THINK, A, EOS)).complete)
    assert draw.answers[0].reopened_thinking
    legacy, _ = run(rules_for(LEGACY), job(1), Script((A,), (A, THINK, A, EOS)).complete)
    assert legacy.answers[0].reopened_thinking


# --- s1's harness -------------------------------------------------------------------------------------------


def test_s1_forced_answer_puts_a_newline_unless_there_is_one():
    rules = rules_for(LEGACY)
    opening = CODEC.encode("<|im_start|>think")
    cue = CODEC.encode("<|im_start|>answer\nFinal Answer:")
    _, asked = run(rules, job(2, 3), Script((A, NEWLINE, A, A), (A, EOS)).complete)
    assert asked[0].prompt_ids == (*PROMPT, *opening)
    assert asked[0].stop_token_ids == tuple(sorted((EOS, IM)))
    prompts = {ask.name: ask.prompt_ids for ask in asked}
    assert prompts["answer@2"] == (*PROMPT, *opening, A, NEWLINE, *cue)
    assert prompts["answer@3"] == (*PROMPT, *opening, A, NEWLINE, A, NEWLINE, *cue)


@pytest.mark.parametrize("stop", [IM, EOS], ids=["im_start", "eos"])
def test_s1_natural_end_swaps_the_stop_for_the_answer_mark(stop):
    rules = rules_for(LEGACY)
    draw, asked = run(rules, job(9), Script((A, A, stop), (A, EOS)).complete)
    assert draw.trace_ids == (A, A, stop)
    assert asked[1].prompt_ids == (
        *PROMPT,
        *CODEC.encode("<|im_start|>think"),
        A,
        A,
        *CODEC.encode("<|im_start|>answer"),
    )
    assert (asked[1].stop_token_ids, asked[1].stop_texts) == ((EOS,), ())


def test_s1_shares_the_grid_seed_and_native_derives_one_per_problem_and_phase():
    _, legacy = run(rules_for(LEGACY), job(2), Script((A, A), (A, EOS)).complete)
    assert {ask.seed for ask in legacy} == {7}
    _, strict = run(rules_for(STRICT), job(2), Script((A, A), (A, EOS)).complete)
    assert [ask.seed for ask in strict] == [
        derived_seed(7, PROMPT, "trace"),
        derived_seed(7, PROMPT, "answer"),
    ]
    other = replace(job(2), prompt_ids=(*PROMPT, A))
    assert start(rules_for(STRICT), other).asks[0].seed != strict[0].seed
    assert 0 <= strict[0].seed < 2**32


def test_derived_seed_is_frozen():
    assert derived_seed(7, (1, 2, 3), "trace") == 2259261675
    assert derived_seed(7, (1, 2, 3), "answer") == 990841465


def test_wait_overrules_the_end_as_often_as_asked_and_counts_towards_the_limit():
    budget = BudgetSpec("s1-legacy", wait=2)
    rules = rules_for(budget)
    wait = tuple(CODEC.encode("Wait"))
    draw, asked = run(rules, job(3, 40), Script((A, A, IM), (A, EOS)).complete)
    assert draw.trace_ids == (A, A, *wait, A, A, *wait, A, A, IM)
    assert (draw.waits, draw.ended) == (2, True)
    assert [ask.name for ask in asked] == ["trace", "trace+1", "trace+2", "answer@3", "answer@9"]
    assert [ask.min_tokens for ask in asked] == [1, 1, 1, 0, 0]
    assert asked[1].prompt_ids == (*asked[0].prompt_ids, A, A, *wait)
    assert asked[1].max_tokens == 37
    assert by_cut(draw)[3].forced


# --- where this differs from upstream, as docs/evaluation.md says ---------------------------------------------


def with_two_ends(budget: BudgetSpec) -> Rules:
    """Rules of a model that declares "b" as an end of sequence beside its usual one, as Qwen does <|endoftext|>."""
    return make_rules(budget, CODEC, frozenset({EOS, IDS["b"]}), 400, SPOKEN if budget.mode != "s1-legacy" else None)


def test_answer_begins_after_the_first_end_tag_and_holds_what_is_thought_again():
    script = Script((THINK, A, END), (THINK, A, END, IDS["7"], EOS))
    draw, _ = run(rules_for(BudgetSpec("native-strict", answer_tokens=9)), job(9), script.complete)
    assert (draw.answers[0].text, draw.answers[0].reopened_thinking) == ("<think>a</think>7", True)


def test_answer_of_a_whole_response_begins_after_the_last_end_tag():
    draw, _ = run(rules_for(BudgetSpec("none")), job(9), Script((A, END, THINK, A, END, IDS["7"], EOS), ()).complete)
    assert (draw.answers[0].text, draw.answers[0].thinking_tokens) == ("7", 5)


def test_any_end_of_sequence_inside_native_thinking_ends_the_response():
    draw, asked = run(with_two_ends(STRICT), job(9), Script((THINK, A, IDS["b"]), (A, EOS)).complete)
    assert [ask.name for ask in asked] == ["trace"], "Qwen's recipe would write the early-stop text and go on"
    assert (draw.answers[0].text, draw.answers[0].forced, draw.ended) == ("<think>a", False, True)


def test_any_end_of_sequence_is_swapped_for_the_answer_mark():
    _, asked = run(with_two_ends(LEGACY), job(9), Script((A, A, IDS["b"]), (A, EOS)).complete)
    assert asked[1].prompt_ids == (*asked[0].prompt_ids, A, A, *CODEC.encode("<|im_start|>answer"))


def test_newline_is_decided_by_the_cut_and_a_cut_inside_wait_keeps_its_beginning():
    rules = rules_for(BudgetSpec("s1-legacy", wait=1, wait_text="Waiting"))
    cue = CODEC.encode("<|im_start|>answer\nFinal Answer:")
    wait = rules.tags.wait
    assert len(wait) == 4
    draw, asked = run(rules, job(2, 4, 8), Script((A, NEWLINE, IM), (A, EOS)).complete)
    assert draw.trace_ids == (A, NEWLINE, *wait, A, NEWLINE), "the end mark would be the ninth"
    before = {ask.name: ask.prompt_ids[len(asked[0].prompt_ids) :] for ask in asked}
    assert before["answer@2"] == (A, NEWLINE, *cue), "what is generated later does not count"
    assert before["answer@4"] == (A, NEWLINE, *wait[:2], NEWLINE, *cue)
    assert before["answer@8"] == (A, NEWLINE, *wait, A, NEWLINE, *cue)
    assert all(answer.forced for answer in draw.answers)


# --- without a budget ---------------------------------------------------------------------------------------


def test_mode_none_truncates_the_response_and_forces_nothing():
    rules = rules_for(BudgetSpec("none"))
    draw, asked = run(rules, job(2, 5, 9), Script((THINK, A, END, IDS["7"], EOS), ()).complete)
    assert len(asked) == 1
    assert asked[0].stop_token_ids == (EOS,)
    short, whole = draw.answers
    assert (short.cut, short.text, short.cap_hit, short.thinking_tokens) == (2, "<think>a", True, 0)
    assert (whole.cut, whole.text, whole.cap_hit, whole.thinking_tokens) == (5, "7", False, 3)
    assert whole.token_ids == (IDS["7"], EOS)


def test_mode_none_needs_no_thinking_format():
    rules = rules_for(BudgetSpec("none"), SPLIT)
    assert rules.style is None
    draw, _ = run(rules, job(9), Script((A, IDS["7"], EOS), ()).complete)
    assert draw.answers[0].text == "a7"


# --- properties ---------------------------------------------------------------------------------------------

CHOICES = [
    SPLIT.ids[p] for p in ("a", "b", "7", "\n", "</", "think", ">", "x</", ">y", "<|", "im_start", "|>", "|>z", "Wa")
]
MODES = st.sampled_from(
    [
        BudgetSpec("native-strict", answer_tokens=3),
        BudgetSpec("s1-legacy"),
        BudgetSpec("s1-legacy", answer_tokens=5),
        BudgetSpec("s1-legacy", wait=1),
        BudgetSpec("s1-legacy", wait=2, wait_text="Waiting"),
        BudgetSpec("none"),
    ]
)
LIMITS = st.sets(st.integers(0, 60), min_size=1, max_size=6).map(lambda limits: tuple(sorted(limits)))


@st.composite
def settings_and_model(draw, sampled=False):
    codec = draw(st.sampled_from([CODEC, SPLIT]))
    whole = [] if codec is SPLIT else [THINK, END, IM]
    rules = rules_for(
        draw(MODES if codec is CODEC else MODES.filter(lambda budget: not budget.wait)),
        codec,
        draw(st.sampled_from([170, 400])),
    )
    # Rare stops make long traces, frequent ones short; both kinds of tags appear.
    choices = CHOICES * draw(st.integers(1, 4)) + whole + [EOS]
    return rules, ScriptedModel(codec, tuple(choices), sampled, draw(st.integers(0, 10_000)))


def rows(draw: Draw) -> dict[int, tuple]:
    return {answer.cut: answer for answer in draw.answers}


def served(draws: list[Draw], limit: int) -> Answer | None:
    """The answer that the store would give for `limit` after committing `draws` in turn."""
    trace = tuple(token for draw in draws for token in draw.trace_ids)
    answers = {answer.cut: answer for draw in draws for answer in draw.answers}
    return answer_for(limit, len(trace), draws[-1].ended, answers)


@settings(max_examples=150, deadline=None)
@given(settings_and_model(sampled=True), LIMITS, st.integers(0, 99))
def test_shared_decoding_equals_independent_decoding(pair, limits, order):
    rules, model = pair
    shared, asked = run(rules, job(*limits), model.complete, order)
    alone_tokens = 0
    for single in independent_jobs(job(*limits)):
        (limit,) = single.limits
        alone, its_asks = run(rules, single, model.complete)
        assert served([shared], limit) == served([alone], limit)
        alone_tokens += sum(ask.max_tokens for ask in its_asks if ask.name.startswith("trace"))
    assert sum(ask.max_tokens for ask in asked if ask.name == "trace") <= max(alone_tokens, 0)


def test_wait_is_refused_where_the_end_mark_is_several_tokens():
    with pytest.raises(ValueError, match=r"budget\.wait = 1: .*'<\|im_start\|>' in 3 tokens.*or drop budget\.wait"):
        rules_for(BudgetSpec("s1-legacy", wait=1), SPLIT)


def test_wait_text_that_outruns_the_context_is_stored_as_far_as_the_context_goes():
    """Limit 53 stores the text that begins at 51, of which the context holds three tokens: limit 55 must end there."""
    rules = rules_for(BudgetSpec("s1-legacy", wait=2, wait_text="Waiting"), context=164)
    model = Script((A,) * 51 + (IM,), (A, EOS))
    at_once, _ = run(rules, job(53, 55), model.complete)
    before, _ = run(rules, job(53), model.complete)
    prior = PriorTrace(before.trace_ids, before.ended, before.limit, before.waits)
    after, _ = run(rules, job(55, prior=prior), model.complete)
    assert at_once.trace_ids == before.trace_ids == (A,) * 51 + rules.tags.wait[:3]
    assert by_cut(after) | by_cut(before) == by_cut(at_once)


@settings(max_examples=150, deadline=None)
@given(settings_and_model(), LIMITS, LIMITS, st.integers(0, 99))
def test_limits_added_later_give_the_rows_of_all_at_once(pair, first, second, order):
    rules, model = pair
    everything = tuple(sorted({*first, *second}))
    at_once, _ = run(rules, job(*everything), model.complete, order)
    before, _ = run(rules, job(*first), model.complete, order)
    prior = PriorTrace(before.trace_ids, before.ended, before.limit, before.waits)
    owed = owed_limits(prior, set(rows(before)), second)
    draws = [before]
    if owed:
        after, asked = run(rules, job(*owed, prior=prior), model.complete, order)
        draws.append(after)
        assert after.start == len(before.trace_ids)
        grown = any(ask.name.startswith("trace") for ask in asked)
        assert after.derived_seed == (grown and after.start > 0)
    for limit in everything:
        assert served(draws, limit) == served([at_once], limit) is not None
    assert (
        owed_limits(
            PriorTrace(tuple(t for d in draws for t in d.trace_ids), draws[-1].ended, 0),
            {answer.cut for draw in draws for answer in draw.answers},
            everything,
        )
        == ()
    )


@settings(max_examples=150, deadline=None)
@given(settings_and_model(), LIMITS, st.integers(0, 99), st.integers(0, 99))
def test_order_of_completions_does_not_matter_and_every_ask_fits(pair, limits, one, other):
    rules, model = pair
    draw, asked = run(rules, job(*limits), model.complete, one)
    assert draw == run(rules, job(*limits), model.complete, other)[0]
    assert len({ask.name for ask in asked}) == len(asked)
    assert all(ask.max_tokens >= 1 and len(ask.prompt_ids) + ask.max_tokens <= rules.context for ask in asked)
    length = len(draw.trace_ids)
    assert [answer.cut for answer in draw.answers] == sorted({min(limit, length) for limit in limits})
    for answer in draw.answers:
        if rules.budget.mode != "none":
            assert answer.forced or (draw.ended and answer.cut == length)


def test_an_engine_that_overshoots_the_end_is_trimmed():
    rules = rules_for(STRICT)
    step = start(rules, job(9))
    step = advance(rules, step.state, "trace", Completion((A, END, A, A), "stop"))
    assert step.state.trace == (A, END)


@pytest.mark.parametrize(
    ("completion", "complaint"),
    [
        (Completion((A, A), "stop"), "at none of the stops asked for"),
        (Completion((A, A), "length"), "context is shorter than the rules' 400"),
    ],
)
def test_an_engine_that_breaks_its_contract_is_named(completion, complaint):
    rules = rules_for(STRICT)
    with pytest.raises(ValueError, match=complaint):
        advance(rules, start(rules, job(9)).state, "trace", completion)


def test_an_answer_nobody_asked_for_is_refused():
    rules = rules_for(STRICT)
    with pytest.raises(ValueError, match="no ask 'answer@5' is open"):
        advance(rules, start(rules, job(9)).state, "answer@5", Completion((A,), "length"))


def test_no_limit_owed_is_refused():
    with pytest.raises(ValueError, match="no limit is owed"):
        start(rules_for(STRICT), job())


def test_qwen3_text_is_the_published_one():
    assert FORMATS["qwen3"].early_stop == (
        "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly now."
        "\n</think>\n\n"
    )
