"""How one draw stands at one token limit: cached, or what is owed of it and why. Pure, but for `read_context`.

The rules of what is owed are those of the plan (`eval/draws.py`) and of grading (`workers/verdicts.py`); here
each case gets its name and its words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from eval.draws import answer_for
from eval.grading import Grade
from orchestrator.plan.resolve import Question
from orchestrator.plan.stored import DrawName
from orchestrator.store.store import Store
from orchestrator.store.tables import TABLES
from workers.draw_rows import METADATA, MeasuredDraw, measure_rows
from workers.grade_rows import GradeKey, verdicts
from workers.messages import Context

DETAILS = ["benchmark", "problem_id", "prompt_ids", "weights_digest", "engine", "worker"]
"""The columns that only a closer look needs: where the rows came from."""


class DrawState(StrEnum):
    """Why a draw is not there at a limit, in the order in which a draw comes about; or that it is there."""

    PATCH = "no-patch"
    TRACE = "no-trace"
    EXTENSION = "extension"
    ANSWER = "answer"
    GRADE = "grade"
    GRADER_FAILED = "grader-failed"
    CACHED = "cached"


@dataclass(frozen=True)
class StoreIndex:
    """Of which patches and contexts the store has anything: listed once, so that what is absent costs no read."""

    patches: frozenset[str]
    contexts: Mapping[str, frozenset[str]]
    """Table -> the contexts with rows in it."""


@dataclass(frozen=True)
class ContextRows:
    """What the store says of one context. `draws` and `grades` are those of its answer context."""

    context: Context
    grader: str
    patch_held: bool
    rows: Sequence[Mapping[str, Any]]
    """Of every answer context, with `trace_tokens`, the length of what they add, in the place of the tokens."""
    draws: Mapping[DrawName, MeasuredDraw]
    grades: Mapping[GradeKey, Grade]
    given_up: Mapping[DrawName, Mapping[str, Any]]
    """The newest failure of each draw that has been given up and not been committed since."""
    seeds: Mapping[str, set[int]]
    """Prompt id -> the seeds it is held with."""
    places: set[tuple[str, str]]
    """(benchmark, problem id) of every row, where the rows were read closely."""
    judges: Mapping[tuple[str, int, int], set[tuple[str, str]]]
    """(prompt id, seed, cut) -> (grader, gold id) of every verdict on that answer."""


@dataclass(frozen=True)
class DrawStatus:
    """One draw at one limit."""

    question: Question
    seed: int
    limit: int
    why: DrawState
    cut: int = 0
    """How many tokens of the trace its answer stands on, or the trace has so far."""
    grade: Grade | None = None
    failure: Mapping[str, Any] | None = None
    """The failure row, for a draw that is owed and was given up."""
    note: str = ""

    @property
    def failed(self) -> bool:
        return self.failure is not None or self.why is DrawState.GRADER_FAILED


def list_store(store: Store) -> StoreIndex:
    """What there is to read."""
    return StoreIndex(store.patch_ids(), {table: store.contexts(table) for table in TABLES})


def read_context(store: Store, context: Context, grader: str, present: StoreIndex, closely: bool) -> ContextRows:
    """Read one context. `closely` adds the columns in `DETAILS`, which the provenance of rows is told by."""
    name = context.context_id
    rows = _read(store, present, "draws", name, [*METADATA, "limit", *(DETAILS if closely else [])])
    grades = _read(store, present, "grades", name)
    failures = _read(store, present, "failures", name)
    seeds: dict[str, set[int]] = {}
    judges: dict[tuple[str, int, int], set[tuple[str, str]]] = {}
    for row in rows:
        seeds.setdefault(row["prompt_id"], set()).add(row["seed"])
    for row in grades:
        if row["answer_context_id"] == context.answer_context_id:
            answer = (row["prompt_id"], row["seed"], row["cut"])
            judges.setdefault(answer, set()).add((row["grader"], row["gold_id"]))
    return ContextRows(
        context,
        grader,
        context.patch_id in present.patches,
        rows,
        measure_rows(rows, context.answer_context_id),
        verdicts(grades, context.answer_context_id, grader),
        still_given_up(failures, rows),
        seeds,
        {(row["benchmark"], row["problem_id"]) for row in rows} if closely else set(),
        judges,
    )


def _read(
    store: Store, present: StoreIndex, table: str, name: str, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    return store.read(table, name, columns).to_pylist() if name in present.contexts[table] else rows


def still_given_up(
    failures: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]
) -> dict[DrawName, Mapping[str, Any]]:
    """The newest failure of each draw, unless something of the draw was committed after it."""
    committed: dict[DrawName, float] = {}
    for row in rows:
        name = (row["prompt_id"], row["seed"])
        committed[name] = max(committed.get(name, 0.0), row["created_at"])
    newest: dict[DrawName, Mapping[str, Any]] = {}
    for failure in sorted(failures, key=lambda row: float(row["created_at"])):
        newest[(failure["prompt_id"], failure["seed"])] = failure
    return {name: row for name, row in newest.items() if row["created_at"] > committed.get(name, 0.0)}


def draw_status(reading: ContextRows, question: Question, seed: int, limit: int) -> DrawStatus:
    """How the draw of `question` with `seed` stands at `limit`."""
    name = (question.gold.prompt_id, seed)
    draw = reading.draws.get(name)
    failure = reading.given_up.get(name)
    if draw is None:
        why = DrawState.TRACE if reading.patch_held else DrawState.PATCH
        return DrawStatus(question, seed, limit, why, failure=failure, note=_other_rows(reading, question, seed))
    cut = answer_for(limit, draw.length, draw.ended, {cut: cut for cut in draw.cuts})
    if cut is None:
        extend = not draw.ended and draw.length < limit
        why = DrawState.EXTENSION if extend else DrawState.ANSWER
        return DrawStatus(question, seed, limit, why, min(limit, draw.length), failure=failure)
    grade = reading.grades.get((*name, cut, question.gold.gold_id))
    if grade is None:
        return DrawStatus(question, seed, limit, DrawState.GRADE, cut, note=_other_grades(reading, question, seed, cut))
    return DrawStatus(
        question, seed, limit, DrawState.GRADER_FAILED if grade.grader_failed else DrawState.CACHED, cut, grade
    )


def _other_rows(reading: ContextRows, question: Question, seed: int) -> str:
    """Whether the context holds this problem in another form."""
    if seeds := sorted(reading.seeds.get(question.gold.prompt_id, ())):
        return f"held with seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} only"
    if (question.benchmark, question.problem_id) in reading.places:
        return "held under another prompt: the problem's text, the prompt settings or the chat template changed"
    return ""


def _other_grades(reading: ContextRows, question: Question, seed: int, cut: int) -> str:
    """Who has judged this answer, or against what, where it is not the grid's grader against today's gold."""
    judges = reading.judges.get((question.gold.prompt_id, seed, cut), set())
    if any(grader == reading.grader for grader, _ in judges):
        return "judged against another gold answer than today's"
    graders = sorted({grader for grader, _ in judges})
    return f"judged by {', '.join(graders)} only" if graders else ""
