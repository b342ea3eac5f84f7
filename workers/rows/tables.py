"""The rows of the store's tables, one dataclass each. orchestrator/store/tables.py has the Arrow schemas."""

from dataclasses import dataclass

from eval.draws import Answer


@dataclass(frozen=True)
class DrawRow:
    """One contribution to a draw: newly generated trace tokens (perhaps none) together with new answers.

    A draw's first row starts at token 0. A row with `start > 0` continues the stored trace to a larger limit; a row
    without trace tokens adds answers at further limits. Rows are never changed.
    """

    context_id: str
    answer_context_id: str
    prompt_id: str
    seed: int
    benchmark: str
    problem_id: str
    prompt_ids: tuple[int, ...]
    start: int
    limit: int
    trace_ids: tuple[int, ...]
    loop_at: int
    """After how many tokens of the whole trace a loop is established (`eval.loops`); 0: not by the end of this row."""
    trace_text: str
    ended: bool
    derived_seed: bool
    waits: int
    answers: tuple[Answer, ...]
    weights_digest: str
    engine: str
    """The settings that can change numerics (versions, dtype, attention backend, ...), as JSON with sorted keys."""
    worker: str
    created_at: float


@dataclass(frozen=True)
class LoopRow:
    """`DrawRow.loop_at` of a draw whose rows were stored before they had it."""

    context_id: str
    prompt_id: str
    seed: int
    trace_tokens: int
    """The length of the trace that was looked at."""
    loop_at: int


@dataclass(frozen=True)
class GradeRow:
    """A grader's verdict on one answer."""

    context_id: str
    answer_context_id: str
    prompt_id: str
    seed: int
    cut: int
    gold_id: str
    grader: str
    verdict: str
    extracted: str
    cause: str
    rule: str
    """Where `extracted` was found; empty if nothing was, and in rows of version 1."""


@dataclass(frozen=True)
class FailureRow:
    """A draw that was given up, with its cause. It is missing data, never a score."""

    context_id: str
    prompt_id: str
    seed: int
    benchmark: str
    problem_id: str
    kind: str
    cause: str
    attempts: int
    log: str
    created_at: float
