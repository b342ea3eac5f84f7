"""The rows that are committed to the store, one dataclass for each of its tables."""

from dataclasses import dataclass

from eval.draws import Answer

DrawKey = tuple[str, str, int]
"""(context id, prompt id, seed): the name of one draw in the store."""


@dataclass(frozen=True)
class DrawRow:
    """One committed contribution to a draw: newly generated trace tokens (perhaps none) and new answers, together.

    A draw's first row starts at token 0. A row with `start > 0` continues an earlier trace to a larger limit, and a row
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
    trace_text: str
    ended: bool
    derived_seed: bool
    waits: int
    answers: tuple[Answer, ...]
    weights_digest: str
    engine: str
    """The settings that can shift numerics (versions, dtype, attention backend, ...), as canonical JSON."""
    worker: str
    created_at: float

    @property
    def key(self) -> DrawKey:
        return (self.context_id, self.prompt_id, self.seed)


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


@dataclass(frozen=True)
class FailureRow:
    """A draw that was given up, with its cause. It is missing data and never a score."""

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

    @property
    def key(self) -> DrawKey:
        return (self.context_id, self.prompt_id, self.seed)
