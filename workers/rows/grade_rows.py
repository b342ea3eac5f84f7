"""The grade rows of a context: which answers have no grade yet, and which verdict counts if a grader tried twice."""

from collections.abc import Iterable, Mapping
from typing import Any

from eval.grading import Grade
from workers.messages import Gold, GradeTask
from workers.rows.draw_rows import METADATA, measure_rows
from workers.store import WorkerStore

AnswerKey = tuple[str, int, int]
"""(prompt id, seed, cut) within one context and answer context."""


def ungraded(store: WorkerStore, task: GradeTask, grader: str) -> list[tuple[AnswerKey, Gold]]:
    """(answer, its gold) of every stored answer that `grader` has not judged against that gold.

    Reads neither tokens nor texts.
    """
    golds: dict[str, set[Gold]] = {}
    for gold in task.golds:
        golds.setdefault(gold.prompt_id, set()).add(gold)
    columns = ["answer_context_id", "prompt_id", "seed", "cut", "gold_id", "grader", "verdict", "cause"]
    graded = {
        (row["prompt_id"], row["seed"], row["cut"], row["gold_id"])
        for row in store.read("grades", task.context_id, columns).to_pylist()
        if row["grader"] == grader
        and row["answer_context_id"] == task.answer_context_id
        # A grading that failed (killed on a busy machine, say) does not count: the grade is owed again.
        and not Grade(row["verdict"], None, row["cause"] or None).grader_failed
    }
    draws = measure_rows(store.read("draws", task.context_id, METADATA).to_pylist(), task.answer_context_id)
    return [
        ((prompt_id, seed, cut), gold)
        for (prompt_id, seed), draw in draws.items()
        for cut in sorted(draw.cuts)
        for gold in sorted(golds.get(prompt_id, ()), key=lambda gold: gold.gold_id)
        if (prompt_id, seed, cut, gold.gold_id) not in graded
    ]


GradeKey = tuple[str, int, int, str]
"""(prompt id, seed, cut, gold id) within a context and answer context."""


def verdicts(rows: Iterable[Mapping[str, Any]], answer_context_id: str, grader: str) -> dict[GradeKey, Grade]:
    """The verdict of `grader` on each answer: the first conclusive one, or the last failure if there is none."""
    found: dict[GradeKey, Grade] = {}
    for row in rows:
        if row["grader"] == grader and row["answer_context_id"] == answer_context_id:
            name = (row["prompt_id"], row["seed"], row["cut"], row["gold_id"])
            if name not in found or found[name].grader_failed:
                cause, rule = row["cause"] or None, row["rule"] or None
                found[name] = Grade(row["verdict"], row["extracted"] or None, cause, rule)
    return found
