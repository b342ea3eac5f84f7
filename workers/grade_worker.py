"""Brings the grades of a context up to date: reads its answers from the store, grades what has no grade, commits.

The work is defined by what the store lacks, so it can be repeated, interrupted and run by anybody: `regrade` is the
same code with another grader.
"""

import os
import socket
from collections.abc import Iterator
from functools import partial

from eval.grader_pool import GraderPool
from eval.grading import GRADERS, Grade, GradeItem
from workers.inbox import Inbox
from workers.joining import COLUMNS, join_rows
from workers.messages import Ended, Facts, Failed, Failure, Gold, Graded, GradeRow, GradeTask, Report, Task
from workers.patience import insist
from workers.store_errors import StoreError
from workers.worker import Sink

AnswerKey = tuple[str, int, int]
"""(prompt id, seed, cut) within one context and answer context."""


CHUNK = 200
"""Answers graded and committed together: seconds of work, so that a slow grader is heard of and loses little."""


def grader_id(grader: str) -> str:
    """The name under which a grader's verdicts are stored: the grader and its version."""
    return f"{grader}@{GRADERS[grader]}"


class GradeWorker:
    """A pool of killable grader processes and the store."""

    def __init__(
        self,
        name: str,
        store: Sink,
        grader: str,
        processes: int,
        seconds: float,
        log: str = "",
        store_seconds: float = 0.0,
    ) -> None:
        """`seconds`: for each answer. `store_seconds`: patience with a store that refuses."""
        self._name, self._store, self._grader, self._log = name, store, grader, log
        self._store_seconds = store_seconds
        self._pool = GraderPool(workers=processes, time_limit=seconds)

    def facts(self) -> Facts:
        return Facts(self._name, socket.gethostname(), os.getpid(), self._log, {"grader": grader_id(self._grader)})

    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        """Grade what the store holds of the task's context and has no grade for, until the inbox closes.

        Reports `Graded`.
        """
        assert isinstance(task, GradeTask)
        try:
            read = partial(ungraded, self._store, task, grader_id(self._grader))
            owed = yield from insist(task.task_id, read, inbox, self._store_seconds)
            for start in range(0, len(owed), CHUNK):
                rows = self._grade(task, owed[start : start + CHUNK])
                commit = partial(self._store.commit_grades, rows)
                yield from insist(task.task_id, commit, inbox, self._store_seconds)
                yield Graded(task.task_id, task.context_id, len(rows))
                if inbox.closed:
                    break
        except (StoreError, OSError) as error:
            yield Failed(task.task_id, Failure("store", f"grading {task.context_id}: {error}", self._log))
        else:
            yield Ended(task.task_id)

    def _grade(self, task: GradeTask, owed: list[tuple[AnswerKey, Gold, str]]) -> list[GradeRow]:
        items = [GradeItem(text, gold.answer, gold.kind, gold.choices) for _, gold, text in owed]
        grades = self._pool.grade_many(items, self._grader)
        # A grader that was killed or starved may do better now; whatever fails twice is said to have failed.
        again = [index for index, grade in enumerate(grades) if grade.grader_failed]
        for index, grade in zip(again, self._pool.grade_many([items[i] for i in again], self._grader), strict=True):
            grades[index] = grade
        return [self._row(task, key, gold, grade) for (key, gold, _), grade in zip(owed, grades, strict=True)]

    def _row(self, task: GradeTask, key: AnswerKey, gold: Gold, grade: Grade) -> GradeRow:
        prompt_id, seed, cut = key
        return GradeRow(
            context_id=task.context_id,
            answer_context_id=task.answer_context_id,
            prompt_id=prompt_id,
            seed=seed,
            cut=cut,
            gold_id=gold.gold_id,
            grader=grader_id(self._grader),
            verdict=grade.verdict,
            extracted=grade.extracted or "",
            cause=grade.cause or "",
        )

    def close(self) -> None:
        self._pool.close()


def ungraded(store: Sink, task: GradeTask, grader: str) -> list[tuple[AnswerKey, Gold, str]]:
    """(answer, its gold, its text) for every answer of the context that `grader` has not judged against that gold."""
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
    draws = join_rows(store.read("draws", task.context_id, COLUMNS).to_pylist(), task.answer_context_id)
    return [
        ((prompt_id, seed, cut), gold, answer["text"])
        for (prompt_id, seed), draw in draws.items()
        for cut, answer in draw.answers.items()
        for gold in sorted(golds.get(prompt_id, ()), key=lambda gold: gold.gold_id)
        if (prompt_id, seed, cut, gold.gold_id) not in graded
    ]
