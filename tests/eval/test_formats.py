"""Thinking formats: detected from the vocabulary, refused where a tokenizer cannot express them, found in ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.formats import FORMATS, ThinkingFormat, detect_format, forced_cue, implied_format, locate, named_format, tags
from eval.prompts import ChatTokenizer
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


def test_empty_tags_are_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        tags(TINY, ThinkingFormat("mine", start="<think>", end="", early_stop="x"))


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
