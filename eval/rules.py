"""The rules by which a variant's draws are made: the budget mode, the thinking format, and what follows from them.

`Rules` holds what all draws of a variant share; `eval.modes.make_rules` builds it. `BudgetMode` is what every mode
defines. The functions say how far a trace may grow, where the engine must stop and where thinking ended. All are pure;
`eval.budget` decides what happens when.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from eval.draws import Answer, Ask, DrawJob
from eval.formats import Tags, ThinkingFormat, TokenCodec, locate
from eval.spec import BudgetSpec

UNCAPPED_ANSWER_ROOM = 100
"""Tokens reserved for an answer without a cap, as for s1's "auto" limit."""


@dataclass(frozen=True)
class CutTrace:
    """The trace that one answer follows, as token ids: the whole trace, or its beginning up to a limit."""

    token_ids: tuple[int, ...]
    end: tuple[int, int] | None
    """`natural_end` of the trace if it is whole and ended by itself, else None."""
    context_full: bool
    """Whether it is whole because the context was full."""


class BudgetMode(ABC):
    """How a token limit is imposed. Each mode is a subclass in a file of `eval/modes/`, whose `MODES` is the table."""

    name: str
    """As written in a grid's `budget.mode`, and in the identity of every draw."""
    answer_phase: bool
    """Whether the trace stops at the end tag and a second request generates the answer. If not, one request generates
    the whole response, and the answer is read off it."""
    needs_answer_tokens: bool = False
    """Whether `budget.answer_tokens` must be set."""
    overrules_end: bool = False
    """Whether `budget.wait` may overrule natural ends of thinking."""

    @abstractmethod
    def choose_format(self, codec: TokenCodec, given: ThinkingFormat | None) -> ThinkingFormat | None:
        """The format to use where the user gave `given`, or None to do without. Raises `ValueError` if there is no
        way to tell."""

    @abstractmethod
    def opening(self, rules: "Rules") -> tuple[int, ...]:
        """The token ids written between the prompt and the trace."""

    @abstractmethod
    def reserved_tokens(self, rules: "Rules") -> int:
        """How many tokens of the context a trace must leave for everything but itself and the prompt."""

    @abstractmethod
    def seed(self, job: DrawJob, phase: str) -> int:
        """The seed of the request for a phase, "trace" or "answer"."""

    @abstractmethod
    def answer(self, rules: "Rules", job: DrawJob, trace: CutTrace) -> Ask | Answer:
        """The answer at a cut, or the request (named `answer@CUT`) that will generate it."""

    def cue(self, style: ThinkingFormat | None) -> str:
        """What is written right before a forced answer, for the model to complete; empty if that is no beginning of an
        answer. It is graded together with the answer."""
        return ""

    @abstractmethod
    def trace_identity(self, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
        """What the traces depend on beyond model, prompt, sampling, mode and wait. It is hashed into their names, so it
        must never change for a mode that has draws in a store."""

    @abstractmethod
    def answer_identity(self, budget: BudgetSpec, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
        """What the answers depend on beyond the trace, the cut and the mode. It is hashed, too."""


@dataclass(frozen=True)
class Rules:
    """Everything that all draws of a variant have in common. Build it with `eval.modes.make_rules`.

    `style` and `tags` are None if the mode does without a thinking format. `context` is the model's maximum length in
    tokens, prompt included.
    """

    mode: BudgetMode
    budget: BudgetSpec
    style: ThinkingFormat | None
    tags: Tags | None
    codec: TokenCodec
    eos_ids: frozenset[int]
    context: int


def longest_trace(rules: Rules, job: DrawJob) -> int:
    """How many tokens the trace may have: the largest limit, or what the context leaves."""
    return min(max(job.limits), room_to_think(rules, job))


def room_to_think(rules: Rules, job: DrawJob) -> int:
    """How many tokens the context leaves for a trace after the prompt, the forced text and the answer.

    Raises `ValueError` if it leaves none.
    """
    room = rules.context - len(job.prompt_ids) - rules.mode.reserved_tokens(rules)
    if room < 1:
        raise ValueError(
            f"problem {job.problem_id!r}: its prompt of {len(job.prompt_ids)} tokens leaves no room to "
            f"think and answer in a context of {rules.context}. Drop the problem, lower "
            "budget.answer_tokens, or use a longer context."
        )
    return room


def thinking_prompt(rules: Rules, prompt_ids: tuple[int, ...]) -> tuple[int, ...]:
    """The token ids before a trace: the prompt, and the opening tag if the mode writes it."""
    return prompt_ids + rules.mode.opening(rules)


def trace_stops(rules: Rules) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(stop token ids, stop texts) of a trace: the end of sequence, and the end tag, as one token or as text."""
    eos = tuple(sorted(rules.eos_ids))
    if not rules.mode.answer_phase or rules.style is None or rules.tags is None:
        return eos, ()
    if len(rules.tags.end) == 1:
        return tuple(sorted({*eos, *rules.tags.end})), ()
    return eos, (rules.style.end,) if rules.style.end else ()


def natural_end(rules: Rules, trace: tuple[int, ...]) -> tuple[int, int] | None:
    """(tokens before the end mark, tokens through it) of the first natural end in `trace`, or None.

    It is read from the ids, not from the engine's reason: an engine that reaches its maximum length on the very token
    that ends the thinking may report "length".
    """
    ends = [(at, at + 1) for at in (first_of(trace, rules.eos_ids),) if at is not None]
    if rules.mode.answer_phase and rules.style is not None and rules.tags is not None:
        if len(rules.tags.end) == 1:
            at = first_of(trace, frozenset(rules.tags.end))
            ends += [(at, at + 1)] if at is not None else []
        elif rules.style.end and (found := locate(trace, rules.style.end, rules.codec)) is not None:
            ends.append(found)
    return min(ends, key=lambda end: end[1]) if ends else None


def first_of(ids: tuple[int, ...], stops: frozenset[int]) -> int | None:
    """The index of the first of `ids` that is in `stops`, or None."""
    return next((index for index, token in enumerate(ids) if token in stops), None)


def reopens_thinking(rules: Rules, text: str) -> bool:
    """Whether `text`, an answer, goes back to thinking."""
    return rules.style is not None and any(mark in text for mark in rules.style.reopens)


def derived_seed(seed: int, prompt_ids: tuple[int, ...], phase: str) -> int:
    """A 32-bit seed for each (seed, prompt, phase), so that the random streams of different problems are independent.

    It does not depend on the limit, so shared and independent decoding agree token for token under any sampling.
    """
    content = f"{seed}|{phase}|{','.join(map(str, prompt_ids))}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big")
