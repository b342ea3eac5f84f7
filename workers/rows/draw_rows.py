"""Joins the rows of a draw: a trace may be stored in several rows, and a row may be stored twice. Pure.

Plan, grading, results and export all read draws through here, so that they see the same trace with the same answers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
"""The columns that `join_rows` needs."""

METADATA = ["answer_context_id", "prompt_id", "seed", "start", "trace_tokens", "ended", "answers.cut", "created_at"]
"""The columns that `measure_rows` needs: none whose size grows with the trace."""

TEXTS = [*METADATA, "answers.forced", "answers.text"]
"""The columns that `read_texts` needs."""

SUMMARY = [
    *METADATA,
    "loop_at",
    *(f"answers.{field}" for field in ("forced", "thinking_tokens", "answer_tokens", "cap_hit", "reopened_thinking")),
]
"""The columns that `summarise_rows` needs: neither tokens nor texts."""


class AnswerText(NamedTuple):
    """What a grader needs of an answer."""

    text: str
    forced: bool
    """Whether it follows text that the engine wrote."""


@dataclass(frozen=True)
class JoinedDraw:
    """One draw, joined from its rows."""

    trace: PriorTrace
    answers: Mapping[int, Mapping[str, Any]]
    """Cut -> the answer's fields."""
    created_at: float
    """When its last row was stored, in seconds since the epoch."""


@dataclass(frozen=True)
class MeasuredDraw:
    """The size of one draw, read without its tokens."""

    length: int
    """The length of its trace in tokens."""
    ended: bool
    cuts: frozenset[int]
    """The cuts at which it has an answer."""


@dataclass(frozen=True)
class DrawSummary:
    """What the results of a draw are computed from, read without its tokens."""

    length: int
    """The length of its trace in tokens."""
    ended: bool
    loop_at: int | None
    """After how many tokens a loop is established, 0 if none is; None if nobody has looked (rows of version 2)."""
    answers: Mapping[int, Mapping[str, Any]]
    """Cut -> the answer's fields, without ids and text."""
    created_at: float
    """When its last row was stored, in seconds since the epoch."""


def join_rows(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int], JoinedDraw]:
    """(prompt id, seed) -> draw, for the rows of one context read with COLUMNS."""
    return {name: _join(group, answer_context_id) for name, group in _by_draw(rows).items()}


def measure_rows(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int], MeasuredDraw]:
    """(prompt id, seed) -> size of the draw that `join_rows` would give, for rows read with METADATA."""
    return {name: _measure(group, answer_context_id) for name, group in _by_draw(rows).items()}


def summarise_rows(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int], DrawSummary]:
    """(prompt id, seed) -> summary of the draw that `join_rows` would give, for rows read with SUMMARY."""
    return {name: _summarise(group, answer_context_id) for name, group in _by_draw(rows).items()}


def read_texts(rows: Iterable[Mapping[str, Any]], answer_context_id: str) -> dict[tuple[str, int, int], AnswerText]:
    """(prompt id, seed, cut) -> text of each answer that `join_rows` would give, for rows read with TEXTS."""
    texts: dict[tuple[str, int, int], AnswerText] = {}
    for (prompt_id, seed), group in _by_draw(rows).items():
        for row in _contiguous(group, _token_count):
            if row["answer_context_id"] == answer_context_id:
                for answer in row["answers"]:
                    told = AnswerText(answer["text"], answer["forced"])
                    texts.setdefault((prompt_id, seed, answer["cut"]), told)
    return texts


def _by_draw(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    by_draw: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_draw.setdefault((row["prompt_id"], row["seed"]), []).append(row)
    return by_draw


def _contiguous(
    rows: list[Mapping[str, Any]], token_count: Callable[[Mapping[str, Any]], int]
) -> Iterator[Mapping[str, Any]]:
    """The rows that make up the draw, in order of the trace.

    A row counts if it begins where the rows before it end. Any other row is a repetition (from a worker that outlived
    its driver, say): of two that begin at the same token the first stored counts, with its answers.
    """
    length, ended = 0, False
    for row in sorted(rows, key=lambda row: (row["start"], row["created_at"])):
        if row["start"] == length and not (ended and token_count(row)):
            length += token_count(row)
            ended = ended or row["ended"]
            yield row


def _token_count(row: Mapping[str, Any]) -> int:
    """The number of a row's trace tokens, for a row that was read without them."""
    return int(row["trace_tokens"])


def _join(rows: list[Mapping[str, Any]], answer_context_id: str) -> JoinedDraw:
    trace: list[int] = []
    answers: dict[int, Mapping[str, Any]] = {}
    ended, limit, waits, created_at = False, 0, 0, 0.0
    for row in _contiguous(rows, lambda row: len(row["trace_ids"])):
        trace += row["trace_ids"]
        ended, limit, waits = ended or row["ended"], max(limit, row["limit"]), max(waits, row["waits"])
        if row["answer_context_id"] == answer_context_id:
            created_at = max(created_at, row["created_at"])
            for answer in row["answers"]:
                answers.setdefault(answer["cut"], answer)
    return JoinedDraw(PriorTrace(tuple(trace), ended, limit, waits), answers, created_at)


def _measure(rows: list[Mapping[str, Any]], answer_context_id: str) -> MeasuredDraw:
    length, ended = 0, False
    cuts: set[int] = set()
    for row in _contiguous(rows, _token_count):
        length, ended = length + row["trace_tokens"], ended or row["ended"]
        if row["answer_context_id"] == answer_context_id:
            cuts.update(answer["cut"] for answer in row["answers"])
    return MeasuredDraw(length, ended, frozenset(cuts))


def _summarise(rows: list[Mapping[str, Any]], answer_context_id: str) -> DrawSummary:
    length, ended, created_at = 0, False, 0.0
    loop_at: int | None = 0
    answers: dict[int, Mapping[str, Any]] = {}
    for row in _contiguous(rows, _token_count):
        length, ended = length + row["trace_tokens"], ended or row["ended"]
        if not loop_at and (row["loop_at"] is not None or row["trace_tokens"]):
            loop_at = row["loop_at"]  # it speaks of the whole trace up to the end of its row
        if row["answer_context_id"] == answer_context_id:
            created_at = max(created_at, row["created_at"])
            for answer in row["answers"]:
                answers.setdefault(answer["cut"], answer)
    return DrawSummary(length, ended, loop_at, answers, created_at)
