"""Thinking formats: detected from the vocabulary, refused where a tokenizer cannot express them, found in ids."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.budget import advance, start
from eval.draws import Completion, DrawJob
from eval.formats import (
    FORMATS,
    ThinkingFormat,
    detect_format,
    forced_cue,
    implied_format,
    knows_s1,
    locate,
    named_format,
    tags,
)
from eval.modes import make_rules
from eval.prompts import ChatTokenizer
from eval.rules import trace_stops
from eval.spec import BudgetSpec
from tests.support import ROOT
from tests.support.scripted_model import PieceCodec


def own(early_stop: str) -> ThinkingFormat:
    return ThinkingFormat(name="own", start="<think>", end="</think>", early_stop=early_stop)


TINY = ChatTokenizer.load(ROOT / "examples" / "tiny" / "model")


class Vocabulary:
    """A tokenizer of which only the listed tokens matter."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    def token_id(self, text: str) -> int | None:
        return self.tokens.index(text) if text in self.tokens else None

    def encode(self, text: str) -> list[int]:
        return [1000 + ord(character) for character in text]

    def decode(self, ids) -> str:
        return "".join(chr(index - 1000) for index in ids)


@pytest.mark.parametrize(
    ("vocabulary", "name"),
    [
        (Vocabulary("<think>", "</think>", "<|im_start|>"), "qwen3"),
        (Vocabulary("<think>", "</think>", "<|im_start|>", "<｜Assistant｜>"), "deepseek-r1"),
        (Vocabulary("<think>", "</think>"), "think"),
        (TINY, "think"),
    ],
)
def test_detection(vocabulary, name):
    assert detect_format(vocabulary) is FORMATS[name]


def test_a_vocabulary_that_shows_nothing_asks_for_the_setting():
    qwen25 = Vocabulary("<|im_start|>", "<|im_end|>")
    assert implied_format(qwen25) is None
    with pytest.raises(ValueError, match=r"models\[\]\.format is not set.*s1 for simplescaling"):
        detect_format(qwen25)


@pytest.mark.parametrize(
    ("style", "cue"),
    [
        (FORMATS["s1"], "Final Answer:"),
        (FORMATS["qwen3"], ""),
        (FORMATS["deepseek-r1"], ""),
        (FORMATS["think"], ""),
        (own("Enough.</think>\n\nSo the answer is \\boxed{"), "So the answer is \\boxed{"),
        (own("</think>\\boxed{"), "\\boxed{"),
        (own("Time is up.</think>\n\nI answer now."), ""),
        (own("</think>\nWhat is it? "), ""),
        (own("</think>\nFinal Answer:\n"), ""),
        (own("</think></think>Answer: "), "Answer: "),
        (own("stop here\nAnswer:"), "Answer:"),
    ],
)
def test_cue_is_the_last_line_after_the_end_tag_unless_it_ends_a_sentence(style, cue):
    assert forced_cue(style) == cue


def test_names():
    assert named_format("s1") is FORMATS["s1"]
    with pytest.raises(ValueError, match=r"models\[\]\.format is 'qwen-3'.*Did you mean 'qwen3'"):
        named_format("qwen-3")


def test_a_tag_that_is_no_token_is_refused_for_families_that_train_on_one():
    with pytest.raises(ValueError, match="format 'qwen3': its start tag '<think>' is not a token"):
        tags(Vocabulary("<|im_start|>"), FORMATS["qwen3"])


def test_a_tag_the_tokenizer_does_not_reproduce_is_refused():
    class Lossy(Vocabulary):
        def decode(self, ids) -> str:
            return super().decode(ids).lower()

    with pytest.raises(ValueError, match="format 'mine': this tokenizer does not reproduce its start tag '<T>'"):
        tags(Lossy(), ThinkingFormat("mine", start="<T>", end="</T>", early_stop="</T>"))


def test_a_format_without_an_early_stop_is_refused():
    with pytest.raises(ValueError, match="early_stop must not be empty"):
        tags(TINY, ThinkingFormat("mine", start="<think>", end="</think>", early_stop=""))


def test_tags_of_the_tiny_model():
    found = tags(TINY, FORMATS["think"])
    assert found.end == (TINY.token_id("</think>"),) == found.early_stop
    assert (found.opening, found.bridge, found.wait) == ((), (), ())
    legacy = tags(TINY, FORMATS["s1"], "Wait")
    assert TINY.decode(legacy.opening) == "<|im_start|>think"
    assert len(legacy.end) == len("<|im_start|>"), "a character tokenizer spells the tag out"
    assert TINY.decode(legacy.wait) == "Wait"


@given(st.lists(st.sampled_from(["a", "</", "think", ">", "x</", ">y", "\n"]), max_size=30))
def test_locate_equals_scanning_every_prefix(pieces):
    codec = PieceCodec(hidden=frozenset({"</think>"}))
    ids = [codec.ids[piece] for piece in pieces]
    texts = [codec.decode(ids[:count]) for count in range(len(ids) + 1)]
    through = next((count for count, text in enumerate(texts) if "</think>" in text), None)
    if through is None:
        assert locate(ids, "</think>", codec) is None
        return
    at = texts[-1].index("</think>")
    before = max(count for count, text in enumerate(texts) if len(text) <= at)
    assert locate(ids, "</think>", codec) == (before, through)


def test_an_instruct_model_thinks_until_its_turn_ends():
    """No tags: only the end of sequence ends the thinking, whose text is the answer; a cut asks for one in words."""
    rules = make_rules(BudgetSpec("native-strict", answer_tokens=8), TINY, TINY.eos_ids, 512, FORMATS["instruct"])
    assert trace_stops(rules) == (tuple(sorted(TINY.eos_ids)), ())
    assert rules.tags is not None
    assert (rules.tags.opening, rules.tags.end, rules.tags.bridge) == ((), (), ())
    assert forced_cue(FORMATS["instruct"]) == "The final answer is"
    eos = min(TINY.eos_ids)
    thought = tuple(TINY.encode("1+1=2;"))
    begun = start(rules, DrawJob("p", (1, 2), 0, (64,)))
    draw = advance(rules, begun.state, "trace", Completion((*thought, eos), "stop")).draw
    assert draw is not None
    assert [(answer.forced, answer.text) for answer in draw.answers] == [(False, "1+1=2;")]
    cut = advance(rules, start(rules, DrawJob("p", (1, 2), 0, (6,))).state, "trace", Completion(thought, "length"))
    assert cut.asks[0].prompt_ids == (1, 2, *thought, *TINY.encode("\n\nThe final answer is"))


def test_an_instruct_response_is_all_answer_without_a_budget():
    rules = make_rules(BudgetSpec("none"), TINY, TINY.eos_ids, 512, FORMATS["instruct"])
    begun = start(rules, DrawJob("p", (1, 2), 0, (64,)))
    ids = (*TINY.encode("1+1=2;"), min(TINY.eos_ids))
    draw = advance(rules, begun.state, "trace", Completion(ids, "stop")).draw
    assert draw is not None
    assert [(answer.text, answer.thinking_tokens) for answer in draw.answers] == [("1+1=2;", 0)]


@pytest.mark.parametrize("extra", [{"start": "<think>"}, {"bridge": "so:"}])
def test_a_tag_without_an_end_is_refused(extra):
    style = replace(FORMATS["instruct"], **extra)
    with pytest.raises(ValueError, match="without an end there is nothing that start or bridge could belong to"):
        tags(TINY, style)


def test_s1s_delimiters_are_known_by_qwens_vocabulary():
    assert knows_s1(Vocabulary("<|im_start|>", "<|object_ref_start|>"))
    assert not knows_s1(Vocabulary("<|im_start|>", "<|im_end|>")), "ChatML alone, as in SmolLM2"
