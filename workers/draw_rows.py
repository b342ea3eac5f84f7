"""The rows of a draw, joined: a trace may come in several, and a row may be there twice. Pure.

Whoever reads draws (plan, grading, results, export) reads them through here, so that all see the same trace with
the same answers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eval.draws import PriorTrace

COLUMNS = [
    "answer_context_id",
    "prompt_id",
    "seed",
    "start",
    "limit",
    "trace_ids",
    "ended",
    "waits",
    "answers",
    "created_at",
]
"""The columns that joining needs."""

METADATA = ["answer_context_id", "prompt_id", "seed", "start", "trace_tokens", "ended", "answers.cut", "created_at"]
"""The columns that measuring needs: none that grows with the length of a trace."""


TEXTS = [*METADATA, "answers.text"]
"""The columns that reading answers needs."""


@dataclass(frozen=True)
class Joined:
    """One draw as its rows tell it."""

    trace: PriorTrace
    answers: Mapping[int, Mapping[str, Any]]
    """Cut -> the answer's fields."""
    created_at: float
    """When the last of it was committed, in seconds since the epoch."""


@dataclass(frozen=True)
class Measured:
    """One draw as its rows tell it, without a token of it."""

    length: int
    """Of its trace, in tokens."""
    ended: bool
    cuts: frozenset[int]
    """Where it has an answer."""


def join_rows(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int], Joined]:
    """Join the rows of each draw of one context (read with COLUMNS)."""
    return {name: _join(group, answer_context_id) for name, group in _by_draw(rows).items()}


def measure_rows(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int], Measured]:
    """What `join_rows` would give, measured (read with METADATA)."""
    return {name: _measure(group, answer_context_id) for name, group in _by_draw(rows).items()}


def read_texts(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int, int], str]:
    """(prompt id, seed, cut) -> the text of each answer that `join_rows` would give (read with TEXTS)."""
    texts: dict[tuple[str, int, int], str] = {}
    for (prompt_id, seed), group in _by_draw(rows).items():
        for row in _standing(group, _told_tokens):
            if row["answer_context_id"] == answer_context_id:
                for answer in row["answers"]:
                    texts.setdefault((prompt_id, seed, answer["cut"]), answer["text"])
    return texts


def _by_draw(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    by_draw: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_draw.setdefault((row["prompt_id"], row["seed"]), []).append(row)
    return by_draw


def _standing(rows: list[Mapping[str, Any]], tokens: Callable[[Mapping[str, Any]], int]) -> Iterator[Mapping[str, Any]]:
    """The rows that count, in the order of the trace.

    A row counts if it begins where the rows before it end. Any other row is a repetition (a worker outlived the driver
    that gave up on it, say): the first committed one stands, trace and answers together.
    """
    length, ended = 0, False
    for row in sorted(rows, key=lambda row: (row["start"], row["created_at"])):
        if row["start"] == length and not (ended and tokens(row)):
            length += tokens(row)
            ended = ended or row["ended"]
            yield row


def _told_tokens(row: Mapping[str, Any]) -> int:
    """How many trace tokens a row has, where it was read without them."""
    return int(row["trace_tokens"])


def _join(rows: list[Mapping[str, Any]], answer_context_id: str) -> Joined:
    trace: list[int] = []
    answers: dict[int, Mapping[str, Any]] = {}
    ended, limit, waits, created_at = False, 0, 0, 0.0
    for row in _standing(rows, lambda row: len(row["trace_ids"])):
        trace += row["trace_ids"]
        ended, limit, waits = ended or row["ended"], max(limit, row["limit"]), max(waits, row["waits"])
        if row["answer_context_id"] == answer_context_id:
            created_at = max(created_at, row["created_at"])
            for answer in row["answers"]:
                answers.setdefault(answer["cut"], answer)
    return Joined(PriorTrace(tuple(trace), ended, limit, waits), answers, created_at)


def _measure(rows: list[Mapping[str, Any]], answer_context_id: str) -> Measured:
    length, ended = 0, False
    cuts: set[int] = set()
    for row in _standing(rows, _told_tokens):
        length, ended = length + row["trace_tokens"], ended or row["ended"]
        if row["answer_context_id"] == answer_context_id:
            cuts.update(answer["cut"] for answer in row["answers"])
    return Measured(length, ended, frozenset(cuts))
