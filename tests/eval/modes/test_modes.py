"""The table of budget modes: what each refuses, which format it takes, and what it puts into an identity.

How each mode decodes is in tests/eval/test_budget.py.
"""

from dataclasses import replace

import pytest

from eval.draws import DrawJob
from eval.formats import FORMATS, ThinkingFormat
from eval.modes import MODES, check_budget, make_rules
from eval.rules import Rules, derived_seed
from eval.spec import BudgetSpec
from tests.support.scripted_model import EOS, PieceCodec

OWN = ThinkingFormat(name="own", start="<think>", end="</think>", early_stop="stop now</think>\n")
CODEC = PieceCodec()
SHOWS_NOTHING = PieceCodec(hidden=frozenset({"<think>", "</think>"}))


def rules_for(mode: str, codec: PieceCodec = CODEC, style: ThinkingFormat | None = None) -> Rules:
    budget = BudgetSpec(mode, answer_tokens=4 if MODES[mode].needs_answer_tokens else None)
    return make_rules(budget, codec, frozenset({EOS}), 400, style)


def test_documented_modes_are_there_and_the_first_is_the_default():
    assert list(MODES) == ["native-strict", "s1-legacy", "none"]


def test_the_papers_budgets_pass():
    check_budget(BudgetSpec("s1-legacy", wait=2))
    check_budget(BudgetSpec("native-strict", answer_tokens=1024, independent_limits=True))
    check_budget(BudgetSpec("none"))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (BudgetSpec("native", answer_tokens=9), "Did you mean 'native-strict'"),
        (BudgetSpec("native-strict"), r"budget.answer_tokens is None.*Set it"),
        (BudgetSpec("native-strict", answer_tokens=0), "budget.answer_tokens is 0"),
        (BudgetSpec("none", answer_tokens=5), "no answer phase of its own"),
        (BudgetSpec("s1-legacy", wait=-1), "budget.wait is -1"),
        (BudgetSpec("native-strict", answer_tokens=9, wait=1), "only s1-legacy overrules"),
        (BudgetSpec("s1-legacy", wait=1, wait_text=""), "budget.wait_text"),
    ],
)
def test_budget_rules(spec, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_budget(spec)


@pytest.mark.parametrize(
    ("mode", "given", "taken"),
    [
        ("native-strict", OWN, OWN),
        ("native-strict", None, FORMATS["think"]),
        ("s1-legacy", OWN, FORMATS["s1"]),
        ("none", OWN, OWN),
        ("none", None, FORMATS["think"]),
    ],
)
def test_format_is_the_given_one_but_in_s1(mode, given, taken):
    codec = PieceCodec(hidden=frozenset({"<|im_start|>"})) if given is None else CODEC
    assert rules_for(mode, codec, given).style is taken


@pytest.mark.parametrize(
    ("mode", "cue"), [("native-strict", "The answer is "), ("s1-legacy", "Final Answer:"), ("none", "")]
)
def test_cue_is_what_the_mode_writes_before_a_forced_answer(mode, cue):
    style = rules_for(mode, style=replace(OWN, early_stop="stop</think>\nThe answer is ")).style
    assert MODES[mode].cue(style) == cue
    assert MODES[mode].cue(None) == ""


def test_only_a_whole_response_does_without_a_format():
    assert rules_for("none", SHOWS_NOTHING).style is None
    with pytest.raises(ValueError, match=r"models\[\]\.format is not set"):
        rules_for("native-strict", SHOWS_NOTHING)


@pytest.mark.parametrize("mode", MODES)
def test_only_s1_uses_the_grid_s_seed(mode):
    job = DrawJob("p1", (1, 2), 7, (8,))
    derived = (derived_seed(7, (1, 2), "trace"), derived_seed(7, (1, 2), "answer"))
    given = (MODES[mode].seed(job, "trace"), MODES[mode].seed(job, "answer"))
    assert given == ((7, 7) if mode == "s1-legacy" else derived)


def test_forced_text_belongs_to_answers_and_the_opening_to_traces():
    rules = rules_for("s1-legacy")
    assert rules.mode.trace_identity(rules.style, rules.tags) == {"opening": rules.tags.opening, "end": "<|im_start|>"}
    assert rules.mode.answer_identity(rules.budget, rules.style, rules.tags) == {
        "answer_tokens": None,
        "early_stop": tuple(CODEC.encode("<|im_start|>answer\nFinal Answer:")),
        "bridge": tuple(CODEC.encode("<|im_start|>answer")),
        "newline": tuple(CODEC.encode("\n")),
        "after_eos": True,
    }


def test_a_whole_response_depends_on_the_tag_that_its_answer_follows():
    rules = rules_for("none", style=OWN)
    assert rules.mode.trace_identity(rules.style, rules.tags) == {}
    assert rules.mode.answer_identity(rules.budget, rules.style, rules.tags) == {"end": "</think>"}
    assert rules.mode.answer_identity(rules.budget, None, None) == {}
