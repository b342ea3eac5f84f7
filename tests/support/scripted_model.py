"""A deterministic stand-in for an engine, and a codec whose tags span tokens, to test budget forcing.

The next token of a `ScriptedModel` is a pure function of the whole context (greedy), or of the request's seed, the
position in the request and the context (sampled), as with vLLM's per-request generators.
"""

import hashlib
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from random import Random

from eval.budget import advance, start
from eval.draws import Ask, Completion, Draw, DrawJob, PriorTrace, unserved_limits
from eval.rules import Rules

# Tags can be written whole (one token), in pieces, or in pieces that carry other text along.
PIECES = (
    "<eos>", "<think>", "</think>", "<|im_start|>", "a", "b", "7", "\n", " ", "</", "think", ">", "x</", ">y", "<|",
    "im_start", "|>", "|>z", "answer", "Final Answer:", "Wait", "Wa", "it", "stop now", "<user>", "<asst>",
)  # fmt: skip
EOS = PIECES.index("<eos>")


class PieceCodec:
    """Encodes greedily by the longest piece, so that encode(decode(ids)) often differs from ids, as in real life.

    `hidden` pieces are not in the vocabulary.
    """

    def __init__(self, hidden: frozenset[str] = frozenset()) -> None:
        self.hidden = hidden
        self.ids = {piece: index for index, piece in enumerate(PIECES) if piece not in hidden}
        for character in map(chr, range(32, 127)):
            self.ids.setdefault(character, len(PIECES) + ord(character))
        self.texts = {index: piece for piece, index in self.ids.items()}

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            piece = max((piece for piece in self.ids if text.startswith(piece)), key=len)
            ids.append(self.ids[piece])
            text = text[len(piece) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.texts[index] for index in ids)

    def token_id(self, text: str) -> int | None:
        return self.ids.get(text)


@dataclass(frozen=True)
class ScriptedModel:
    """`choices` are the tokens that it may write; with `sampled` they depend on the request's seed."""

    codec: PieceCodec
    choices: tuple[int, ...]
    sampled: bool = False
    salt: int = 0

    def complete(self, ask: Ask) -> Completion:
        written: list[int] = []
        while len(written) < ask.max_tokens:
            token = self._next(ask, written)
            if len(written) < ask.min_tokens and token in ask.stop_token_ids:
                token = self.codec.ids["a"]
            written.append(token)
            if token in ask.stop_token_ids:
                return Completion(tuple(written), "stop")
            if any(text in self.codec.decode(written) for text in ask.stop_texts):
                return Completion(tuple(written), "stop")
        return Completion(tuple(written), "length")

    def _next(self, ask: Ask, written: list[int]) -> int:
        stream = (ask.seed, len(written)) if self.sampled else None
        context = (*ask.prompt_ids, *written)
        digest = hashlib.sha256(repr((context, stream, self.salt)).encode()).digest()
        return self.choices[digest[0] % len(self.choices)]


@dataclass(frozen=True)
class Script:
    """A model that writes given tokens: `trace` for every ask of the trace, `answer` for every other."""

    trace: tuple[int, ...]
    answer: tuple[int, ...]

    def complete(self, ask: Ask) -> Completion:
        plan = self.trace if ask.name.startswith("trace") else self.answer
        written = plan[: ask.max_tokens]
        stops = [index for index, token in enumerate(written) if token in ask.stop_token_ids]
        if stops:
            return Completion(written[: stops[0] + 1], "stop")
        return Completion(written, "length" if len(written) == ask.max_tokens else "stop")


def run(rules: Rules, job: DrawJob, complete: Callable[[Ask], Completion], order: int = 0) -> tuple[Draw, list[Ask]]:
    """Drive a draw to its end, completing open asks in an order chosen by `order`. Returns the draw and all asks."""
    random = Random(order)
    step = start(rules, job)
    asked: list[Ask] = list(step.asks)
    waiting = list(step.asks)
    while step.draw is None:
        ask = waiting.pop(random.randrange(len(waiting)))
        step = advance(rules, step.state, ask.name, complete(ask))
        asked += step.asks
        waiting += step.asks
    assert not waiting, "a draw was finished while asks were open"
    return step.draw, asked


def owed_limits(trace: PriorTrace | None, cuts: Set[int], limits: tuple[int, ...]) -> tuple[int, ...]:
    """The `limits` that the stored `trace` and the answers at `cuts` do not serve yet, in the given order."""
    return limits if trace is None else unserved_limits(len(trace.token_ids), trace.ended, cuts, limits)


def independent_jobs(job: DrawJob) -> tuple[DrawJob, ...]:
    """One job per limit, as with `independent_limits`: each decodes a trace of its own, with the same seed."""
    return tuple(replace(job, limits=(limit,), prior=None) for limit in job.limits)
