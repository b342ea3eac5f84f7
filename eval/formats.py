"""Thinking formats: how a model family opens and ends its thinking, and what to write when a limit cuts it.

A format is data. The built-in ones are in `FORMATS`; a grid may give its own. `tags` turns one into the token ids of a
tokenizer, and refuses a tokenizer that cannot express it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.spec import nearest


class TokenCodec(Protocol):
    """What a format needs of a tokenizer; `eval.prompts.ChatTokenizer` is one."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int] | tuple[int, ...]) -> str: ...
    def token_id(self, text: str) -> int | None: ...


@dataclass(frozen=True)
class ThinkingFormat:
    """How one model family delimits its thinking. All texts are written to, or looked for in, token streams.

    `start` opens the thinking. The model writes it, or, with `prefill_start`, it is written after the prompt. `end`
    ends the thinking, and a trace stops there. `early_stop` is written after a trace that a limit cut; with
    `newline_rule`, after a newline unless the trace ends in one. `bridge` replaces the end tag before the answer that
    follows a natural end; None keeps the tag as the model wrote it. `answer_after_eos`: an end of sequence inside the
    thinking is still followed by an answer phase. `single_tokens`: the tags must be tokens of the vocabulary. Without
    an `end`, and so without a `start`, only the end of the sequence ends the thinking, and all of it is the answer.
    `reopens`: texts that show, in an answer, that the model went back to thinking.
    """

    name: str
    start: str
    end: str
    early_stop: str
    prefill_start: bool = False
    newline_rule: bool = False
    bridge: str | None = None
    answer_after_eos: bool = False
    single_tokens: bool = False
    reopens: tuple[str, ...] = ("<think>",)


FORMATS: dict[str, ThinkingFormat] = {
    # QwenLM/Qwen3, docs: quickstart.md and thinking_budget.md. The text is quoted verbatim.
    "qwen3": ThinkingFormat(
        name="qwen3",
        start="<think>",
        end="</think>",
        early_stop="\n\nConsidering the limited time by the user, I have to give the solution based on the "
        "thinking directly now.\n</think>\n\n",
        single_tokens=True,
    ),
    # simplescaling/s1, lm-evaluation-harness fork, vllm_causallms.py: thinking_start, until_thinking, thinking_end.
    # `reopens` covers the paper's Qwen3 runs, too, where the model opens its own <think> inside the answer.
    "s1": ThinkingFormat(
        name="s1",
        start="<|im_start|>think",
        end="<|im_start|>",
        early_stop="<|im_start|>answer\nFinal Answer:",
        prefill_start=True,
        newline_rule=True,
        bridge="<|im_start|>answer",
        answer_after_eos=True,
        reopens=("<|im_start|>think", "<think>"),
    ),
    # DeepSeek publishes no early-stop text; this closes the block as its own outputs do.
    "deepseek-r1": ThinkingFormat(
        name="deepseek-r1", start="<think>", end="</think>", early_stop="\n</think>\n\n", single_tokens=True
    ),
    # The bare tag: for models of which nothing more is known, and for the tiny example, trained to answer right after.
    "think": ThinkingFormat(name="think", start="<think>", end="</think>", early_stop="</think>", single_tokens=True),
    # An ordinary instruct model, asked to reason by the prompt (prompt.preset: boxed). It ends its turn by itself; cut
    # off, it is made to say where it has got to, in words that graders look for.
    "instruct": ThinkingFormat(name="instruct", start="", end="", early_stop="\n\nThe final answer is"),
}

_QWEN_TOKEN = "<|object_ref_start|>"
"""In the vocabulary of Qwen2.5 and Qwen3, and of no other family."""
_DEEPSEEK_TOKEN = "<｜Assistant｜>"


@dataclass(frozen=True)
class Tags:
    """The texts of a format as token ids of one tokenizer; empty where the format writes nothing."""

    opening: tuple[int, ...]
    end: tuple[int, ...]
    bridge: tuple[int, ...]
    early_stop: tuple[int, ...]
    newline: tuple[int, ...]
    wait: tuple[int, ...]


def implied_format(tokenizer: TokenCodec) -> ThinkingFormat | None:
    """The built-in format that the vocabulary implies, or None.

    DeepSeek's vocabulary has its assistant mark (so do the R1 distillations into Qwen); Qwen3's has `<think>` and
    `<|im_start|>`. s1's models have Qwen2.5's vocabulary, which implies none.
    """
    if tokenizer.token_id("<think>") is None or tokenizer.token_id("</think>") is None:
        return None
    if tokenizer.token_id(_DEEPSEEK_TOKEN) is not None:
        return FORMATS["deepseek-r1"]
    return FORMATS["qwen3" if tokenizer.token_id("<|im_start|>") is not None else "think"]


def detect_format(tokenizer: TokenCodec) -> ThinkingFormat:
    """The built-in format that the vocabulary implies. Raises `ValueError`, asking for `models[].format`, if none."""
    implied = implied_format(tokenizer)
    if implied is None:
        raise ValueError(
            "models[].format is not set, and the tokenizer has no <think> and </think> tokens to tell the "
            f"thinking format by. Set it to one of {', '.join(FORMATS)} (instruct for models without tags, s1 for "
            "simplescaling's models), or "
            "give start, end and early_stop of your own."
        )
    return implied


def knows_s1(tokenizer: TokenCodec) -> bool:
    """Whether a model with this vocabulary may know s1's delimiters: they are Qwen2.5's tokens, and s1 trained it."""
    return tokenizer.token_id("<|im_start|>") is not None and tokenizer.token_id(_QWEN_TOKEN) is not None


def named_format(name: str) -> ThinkingFormat:
    """The built-in format called `name`. Raises `ValueError` suggesting the nearest name if there is none."""
    if name not in FORMATS:
        raise ValueError(
            f"models[].format is {name!r}, but the built-in formats are {', '.join(FORMATS)}."
            f"{nearest(name, FORMATS)} Or give start, end and early_stop of your own."
        )
    return FORMATS[name]


def tags(tokenizer: TokenCodec, style: ThinkingFormat, wait_text: str = "") -> Tags:
    """The token ids of every text of `style`. Raises `ValueError` if the tokenizer cannot express one of them."""
    if not style.early_stop:
        raise ValueError(f"format {style.name!r}: early_stop must not be empty. Give a text that asks for the answer.")
    if not style.end and (style.start or style.bridge):
        raise ValueError(
            f"format {style.name!r}: without an end there is nothing that start or bridge could belong to. Give the "
            "end tag, or leave all three empty for a model that thinks in its answer."
        )
    for field, text in (("start", style.start), ("end", style.end)):
        if style.single_tokens and tokenizer.token_id(text) is None:
            raise ValueError(
                f"format {style.name!r}: its {field} tag {text!r} is not a token of this tokenizer, so the "
                "model was not trained to write it. Set models[].format to the format it was trained with."
            )
        if tokenizer.decode(tokenizer.encode(text)) != text:
            raise ValueError(
                f"format {style.name!r}: this tokenizer does not reproduce its {field} tag {text!r} "
                f"({tokenizer.decode(tokenizer.encode(text))!r}), so it could never be found. Set "
                "models[].format."
            )
    whole_end = tokenizer.token_id(style.end) if style.end else None
    return Tags(
        opening=tuple(tokenizer.encode(style.start)) if style.prefill_start else (),
        end=(whole_end,) if whole_end is not None else tuple(tokenizer.encode(style.end)),
        bridge=tuple(tokenizer.encode(style.bridge)) if style.bridge else (),
        early_stop=tuple(tokenizer.encode(style.early_stop)),
        newline=tuple(tokenizer.encode("\n")) if style.newline_rule else (),
        wait=tuple(tokenizer.encode(wait_text)) if wait_text else (),
    )


def locate(ids: Sequence[int], text: str, codec: TokenCodec) -> tuple[int, int] | None:
    """Where `text` is in `ids`: (tokens before it begins, tokens through its end), or None.

    For a tag of several tokens, which may share its first or last token with other text. The ids are never
    re-tokenized: prefixes are decoded, and as a longer prefix contains every tag that a shorter one does, bisection
    finds both ends in O(log n) decodings.
    """
    whole = codec.decode(tuple(ids))
    at = whole.find(text)
    if at < 0:
        return None
    through = _bisect(len(ids), lambda count: text in codec.decode(tuple(ids[:count])))
    # The token that reaches past `at` contains the tag's first character.
    return tokens_reaching(ids, at + 1, codec) - 1, through


def tokens_reaching(ids: Sequence[int], characters: int, codec: TokenCodec) -> int:
    """How many of the first `ids` decode to at least `characters` characters; all of them together must."""
    if characters == 0:
        return 0
    return _bisect(len(ids), lambda count: len(codec.decode(tuple(ids[:count]))) >= characters)


def forced_cue(style: ThinkingFormat) -> str:
    """What `style` writes right before a forced answer, for the model to complete: the last line of its early-stop text
    after the end tag, such as `Final Answer:`. Empty if there is none, or if it ends a sentence and so asks for
    nothing."""
    after = style.early_stop.rpartition(style.end)[2] if style.end else style.early_stop
    line = after.rsplit("\n", 1)[-1]
    return "" if not line.strip() or line.rstrip().endswith((".", "!", "?")) else line


def _bisect(high: int, holds: Callable[[int], bool]) -> int:
    """The smallest count in 1..`high` for which `holds` is true. It must be monotone, and true at `high`."""
    low = 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
