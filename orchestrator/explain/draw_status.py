"""The status of one draw at one token limit: complete, or what is owed of it and why. Only reading is not pure.

What is owed follows the rules of the plan (`eval/draws.py`) and of grading (`workers/rows/grade_rows.py`); this file
only gives each case a name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from eval.draws import answer_for
from eval.grading import Grade
from orchestrator.plan.resolved_grid import Question
from orchestrator.plan.stored import DrawName
from orchestrator.store.store import Store
from orchestrator.store.tables import TABLES
from workers.messages import Context
from workers.rows.draw_rows import METADATA, MeasuredDraw, measure_rows
from workers.rows.grade_rows import AnswerKey, GradeKey, verdicts

PROVENANCE = ["benchmark", "problem_id", "prompt_ids", "weights_digest", "engine", "worker"]
"""The columns that tell where rows came from; the overview does not read them."""


class DrawState(StrEnum):
    """The first stage that a draw lacks at a limit, in the order in which draws are made; or complete."""

    PATCH = "no-patch"
    TRACE = "no-trace"
    EXTENSION = "extension"
    ANSWER = "answer"
    GRADE = "grade"
    GRADER_FAILED = "grader-failed"
    COMPLETE = "complete"


@dataclass(frozen=True)
class StoreIndex:
    """The patches and contexts of which the store has anything. Listed once, so that an absent one costs no read."""

    patches: frozenset[str]
    contexts: Mapping[str, frozenset[str]]
    """Table -> the contexts with rows in it."""


@dataclass(frozen=True)
class ContextRows:
    """What the store has of one context. `draws` and `grades` are those of its answer context."""

    context: Context
    grader: str
    patch_stored: bool
    rows: Sequence[Mapping[str, Any]]
    """Draw rows of every answer context, with `trace_tokens`, a count, in place of the token ids."""
    draws: Mapping[DrawName, MeasuredDraw]
    grades: Mapping[GradeKey, Grade]
    given_up: Mapping[DrawName, Mapping[str, Any]]
    """The latest failure row of each draw that was given up and not committed since."""
    seeds: Mapping[str, set[int]]
    """Prompt id -> the seeds it is stored with."""
    problems: set[tuple[str, str]]
    """(benchmark, problem id) of every row; empty unless the rows were read with their provenance."""
    graded_by: Mapping[AnswerKey, set[tuple[str, str]]]
    """(prompt id, seed, cut) -> (grader, gold id) of every verdict on that answer."""


@dataclass(frozen=True)
class DrawStatus:
    """One draw at one limit."""

    question: Question
    seed: int
    limit: int
    state: DrawState
    cut: int = 0
    """The cut of its answer, in tokens; for an owed extension or answer, how much of the trace up to the limit is
    stored."""
    grade: Grade | None = None
    failure: Mapping[str, Any] | None = None
    """The failure row of an owed draw that was given up."""
    note: str = ""
    """What the store has instead, if anything."""

    @property
    def failed(self) -> bool:
        return self.failure is not None or self.state is DrawState.GRADER_FAILED


def list_store(store: Store) -> StoreIndex:
    """List what there is to read."""
    return StoreIndex(store.patch_ids(), {table: store.contexts(table) for table in TABLES})


def read_context(store: Store, context: Context, grader: str, index: StoreIndex, columns: Sequence[str]) -> ContextRows:
    """Read one context. `columns`: further columns of its draws to read, `PROVENANCE` or none."""
    rows = _read(store, index, "draws", context.context_id, [*METADATA, "limit", *columns])
    grades = _read(store, index, "grades", context.context_id)
    failures = _read(store, index, "failures", context.context_id)
    seeds: dict[str, set[int]] = {}
    graded_by: dict[AnswerKey, set[tuple[str, str]]] = {}
    for row in rows:
        seeds.setdefault(row["prompt_id"], set()).add(row["seed"])
    for row in grades:
        if row["answer_context_id"] == context.answer_context_id:
            answer = (row["prompt_id"], row["seed"], row["cut"])
            graded_by.setdefault(answer, set()).add((row["grader"], row["gold_id"]))
    return ContextRows(
        context,
        grader,
        context.patch_id in index.patches,
        rows,
        measure_rows(rows, context.answer_context_id),
        verdicts(grades, context.answer_context_id, grader),
        still_given_up(failures, rows),
        seeds,
        {(row["benchmark"], row["problem_id"]) for row in rows if "benchmark" in row},
        graded_by,
    )


def _read(
    store: Store, index: StoreIndex, table: str, context_id: str, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    return store.read(table, context_id, columns).to_pylist() if context_id in index.contexts[table] else rows


def still_given_up(
    failures: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]
) -> dict[DrawName, Mapping[str, Any]]:
    """The latest failure of each draw, unless some part of the draw was committed after it."""
    committed: dict[DrawName, float] = {}
    for row in rows:
        name = (row["prompt_id"], row["seed"])
        committed[name] = max(committed.get(name, 0.0), row["created_at"])
    latest: dict[DrawName, Mapping[str, Any]] = {}
    for failure in sorted(failures, key=lambda row: float(row["created_at"])):
        latest[(failure["prompt_id"], failure["seed"])] = failure
    return {name: row for name, row in latest.items() if row["created_at"] > committed.get(name, 0.0)}


def draw_status(stored: ContextRows, question: Question, seed: int, limit: int) -> DrawStatus:
    """The status at `limit` of the draw of `question` with `seed`."""
    name = (question.gold.prompt_id, seed)
    draw = stored.draws.get(name)
    failure = stored.given_up.get(name)
    if draw is None:
        state = DrawState.TRACE if stored.patch_stored else DrawState.PATCH
        return DrawStatus(question, seed, limit, state, failure=failure, note=_stored_instead(stored, question))
    cut = answer_for(limit, draw.length, draw.ended, {cut: cut for cut in draw.cuts})
    if cut is None:
        extend = not draw.ended and draw.length < limit
        state = DrawState.EXTENSION if extend else DrawState.ANSWER
        return DrawStatus(question, seed, limit, state, min(limit, draw.length), failure=failure)
    grade = stored.grades.get((*name, cut, question.gold.gold_id))
    if grade is None:
        return DrawStatus(question, seed, limit, DrawState.GRADE, cut, note=_graded_instead(stored, (*name, cut)))
    state = DrawState.GRADER_FAILED if grade.grader_failed else DrawState.COMPLETE
    return DrawStatus(question, seed, limit, state, cut, grade)


def _stored_instead(stored: ContextRows, question: Question) -> str:
    """In what other form the context has this problem: with other seeds, or under another prompt."""
    if seeds := sorted(stored.seeds.get(question.gold.prompt_id, ())):
        return f"stored with seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} only"
    if (question.benchmark, question.problem_id) in stored.problems:
        return "stored under another prompt: the problem's text, the prompt settings or the chat template changed"
    return ""


def _graded_instead(stored: ContextRows, answer: AnswerKey) -> str:
    """Which other graders judged this answer, or that the grid's judged it against another gold answer."""
    graded_by = stored.graded_by.get(answer, set())
    if any(grader == stored.grader for grader, _ in graded_by):
        return "judged against another gold answer than today's"
    graders = sorted({grader for grader, _ in graded_by})
    return f"judged by {', '.join(graders)} only" if graders else ""
