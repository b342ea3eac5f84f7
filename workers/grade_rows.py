"""The grade rows of a context: which verdict stands where a grader tried more than once, and what it has not judged."""

from collections.abc import Iterable, Mapping
from typing import Any

from eval.grading import Grade
from workers.draw_rows import METADATA, measure_rows
from workers.messages import Gold, GradeTask
from workers.store import WorkerStore

AnswerKey = tuple[str, int, int]
"""(prompt id, seed, cut) within one context and answer context."""


def ungraded(store: WorkerStore, task: GradeTask, grader: str) -> list[tuple[AnswerKey, Gold]]:
    """(answer, its gold) for every answer of the context that `grader` has not judged against that gold.

    No token and no text is read.
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
        # A grader that was killed (a busy machine, say) has not judged: the answer is owed again.
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
    """What `grader` says of each answer. A later try that came to a verdict stands before one on which it failed."""
    found: dict[GradeKey, Grade] = {}
    for row in rows:
        if row["grader"] == grader and row["answer_context_id"] == answer_context_id:
            name = (row["prompt_id"], row["seed"], row["cut"], row["gold_id"])
            if name not in found or found[name].grader_failed:
                found[name] = Grade(row["verdict"], row["extracted"] or None, row["cause"] or None)
    return found
