"""The values that budget forcing speaks in, and what a stored draw already answers. No logic of decoding
here.

An answer is keyed by its **cut**, the number of trace tokens it stands on: min(limit, natural length of the
trace).
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal, TypeVar

Finish = Literal["stop", "length"]
AnswerT = TypeVar("AnswerT")
"""An answer, as a value or as a stored row."""


@dataclass(frozen=True)
class Ask:
    """One generation request. ``name`` is unique within the draw; generation stops at any of the stops,
    which it keeps.

    ``min_tokens`` forbids stop tokens before that many tokens (s1 after a "Wait").
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
    """Everything the engine generated for an ask, the stop token included."""

    token_ids: tuple[int, ...]
    finish: Finish


@dataclass(frozen=True)
class PriorTrace:
    """What the store already holds of a draw: its whole trace so far. ``waits`` as in ``Draw``."""

    token_ids: tuple[int, ...]
    ended: bool
    limit: int
    waits: int = 0


@dataclass(frozen=True)
class DrawJob:
    """One draw to make: a prompt, a seed, and the limits still owed."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    seed: int
    limits: tuple[int, ...]
    prior: PriorTrace | None = None


@dataclass(frozen=True)
class Answer:
    """The answer at one cut.

    ``forced``: a limit (or the context) cut the trace. ``token_ids``: what the answer phase generated.
    ``text``: its decoding without the end token, ready for a grader. ``finish_reason``: "stop", "length"
    (the answer's own cap) or "context" (the model's context ended before the cap); ``cap_hit`` is true for
    the latter two.
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
    """A finished draw: the new part of its trace and the answers that were owed, ordered by cut.

    ``trace_ids`` begin at token ``start`` of the whole trace. ``ended``: the trace cannot grow (natural
    end, or the context is full). ``limit``: the largest limit the whole trace now serves. ``derived_seed``:
    the new part was sampled with a seed derived for a continuation. ``waits``: ends of thinking overruled
    so far.
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
    """The stored answer that serves ``limit``: the one at cut min(limit, trace_len). None if it is still
    owed.
    """
    if not ended and trace_len < limit:
        return None
    return answers_by_cut.get(min(limit, trace_len))


def unserved_limits(length: int, ended: bool, cuts: Set[int], limits: tuple[int, ...]) -> tuple[int, ...]:
    """The ``limits`` that a trace of ``length`` tokens with answers at ``cuts`` does not serve yet."""
    return tuple(limit for limit in limits if (not ended and length < limit) or min(limit, length) not in cuts)
