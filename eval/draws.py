"""The values of budget forcing: asks, completions, jobs, draws, answers; and which limits a stored draw serves.

An answer is keyed by its **cut**, the number of trace tokens before it: min(limit, natural length of the trace).
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal, TypeVar

Finish = Literal["stop", "length"]
AnswerT = TypeVar("AnswerT")
"""An answer, as a value or as a stored row."""


@dataclass(frozen=True)
class Ask:
    """One generation request.

    `name` is unique within the draw. Generation ends at the first stop, which stays in the completion. No stop token is
    allowed among the first `min_tokens` tokens (s1, after a "Wait").
    """

    name: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    stop_texts: tuple[str, ...]
    seed: int
    min_tokens: int = 0


@dataclass(frozen=True)
class Completion:
    """Everything that the engine generated for an ask, the stop included."""

    token_ids: tuple[int, ...]
    finish: Finish


@dataclass(frozen=True)
class PriorTrace:
    """The stored trace of a draw, from its beginning. `ended`, `limit` and `waits` are as in `Draw`."""

    token_ids: tuple[int, ...]
    ended: bool
    limit: int
    waits: int = 0


@dataclass(frozen=True)
class DrawJob:
    """One draw to make: a prompt, a seed, and the limits that are owed."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    seed: int
    limits: tuple[int, ...]
    prior: PriorTrace | None = None


@dataclass(frozen=True)
class Answer:
    """The answer at one cut.

    `forced`: a limit or the context cut the trace. `token_ids`: what the answer phase generated. `text`: those ids
    decoded without the end token, ready for a grader. `finish_reason`: "stop", "length" (the answer's own cap) or
    "context" (the model's context was full before the cap); `cap_hit` is true for the latter two.
    `reopened_thinking`: the answer went back to thinking.
    """

    cut: int
    forced: bool
    thinking_tokens: int
    token_ids: tuple[int, ...]
    text: str
    cap_hit: bool
    finish_reason: str
    reopened_thinking: bool


@dataclass(frozen=True)
class Draw:
    """A finished draw: the new part of its trace, and the answers that were owed, ordered by cut.

    `trace_ids` begin at token `start` of the whole trace. `ended`: the trace cannot grow (natural end, or a full
    context). `limit`: the largest limit that the whole trace now serves. `derived_seed`: the new part was sampled with
    a seed derived for a continuation. `waits`: how many ends of thinking were overruled so far.
    """

    problem_id: str
    seed: int
    start: int
    trace_ids: tuple[int, ...]
    ended: bool
    limit: int
    derived_seed: bool
    answers: tuple[Answer, ...]
    waits: int = 0


def answer_for(limit: int, trace_len: int, ended: bool, answers_by_cut: Mapping[int, AnswerT]) -> AnswerT | None:
    """The stored answer that serves `limit`, the one at cut min(limit, trace_len); None if it is owed."""
    if not ended and trace_len < limit:
        return None
    return answers_by_cut.get(min(limit, trace_len))


def unserved_limits(length: int, ended: bool, cuts: Set[int], limits: tuple[int, ...]) -> tuple[int, ...]:
    """Which of `limits` a stored trace of `length` tokens with answers at `cuts` does not serve, in the given order."""
    return tuple(limit for limit in limits if (not ended and length < limit) or min(limit, length) not in cuts)
