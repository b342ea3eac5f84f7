"""Brings the grades of a context up to date: reads its answers from the store, grades what has no grade, commits.

The work is defined by what is not graded yet, so it can be repeated, interrupted and run from anywhere: `regrade` is
the same code with another grader.
"""

import os
import socket
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

from eval.grader_pool import GraderPool
from eval.grading import Grade, GradeItem, grader_id
from workers.failure import Failure, FailureKind
from workers.messages import Gold, Graded, GradeTask, Heartbeat, Report, Task, TaskEnded, TaskFailed, WorkerInfo
from workers.rows.draw_rows import TEXTS, AnswerText, read_texts
from workers.rows.grade_rows import AnswerKey, ungraded
from workers.rows.tables import GradeRow
from workers.store import StoreError, WorkerStore
from workers.store_retry import retry_while_unavailable
from workers.worker import Inbox

CHUNK = 200
"""Largest number of answers that are graded and committed together."""


@dataclass(frozen=True)
class GradeSettings:
    """How a worker grades."""

    grader: str
    processes: int
    seconds: float
    """Of processor time for each answer."""
    store_seconds: float = 0.0
    """How long a store that refuses is retried."""
    chunk_seconds: float = 10.0
    """Close a chunk after this many seconds, so that a slow grader still reports and commits."""


class GradeWorker:
    """A pool of killable grader processes and the store."""

    def __init__(self, name: str, store: WorkerStore, settings: GradeSettings, log: str = "") -> None:
        self._name, self._store, self._settings, self._log = name, store, settings, log
        self._pool = GraderPool(workers=settings.processes, time_limit=settings.seconds)

    def facts(self) -> WorkerInfo:
        return WorkerInfo(
            self._name, socket.gethostname(), os.getpid(), self._log, {"grader": grader_id(self._settings.grader)}
        )

    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        """Grade the stored answers of the task's context that have no grade, until the inbox closes.

        Reports `Graded`; never silent for longer than `chunk_seconds` plus the time of one try at one answer.
        """
        assert isinstance(task, GradeTask)
        try:
            read = partial(_ungraded_texts, self._store, task, grader_id(self._settings.grader))
            owed = yield from retry_while_unavailable(task.task_id, read, inbox, self._settings.store_seconds)
            while owed and not inbox.closed:
                rows = yield from self._grade(task, owed[:CHUNK])
                owed = owed[len(rows) :]
                commit = partial(self._store.commit_grades, rows)
                yield from retry_while_unavailable(task.task_id, commit, inbox, self._settings.store_seconds)
                yield Graded(task.task_id, task.context_id, len(rows))
        except (StoreError, OSError) as error:
            yield TaskFailed(task.task_id, Failure(FailureKind.STORE, f"grading {task.context_id}: {error}", self._log))
        else:
            yield TaskEnded(task.task_id)

    def _grade(
        self, task: GradeTask, owed: list[tuple[AnswerKey, Gold, AnswerText]]
    ) -> Generator[Heartbeat, None, list[GradeRow]]:
        """Grade as many of `owed` as a chunk takes, at least one; returns their rows."""
        items = [
            GradeItem(answer.text, gold.answer, gold.kind, gold.choices, cue=task.cue if answer.forced else "")
            for _, gold, answer in owed
        ]
        turns = self._pool.grade_in_turns(self._settings.chunk_seconds, items, self._settings.grader)
        while True:
            try:
                next(turns)
            except StopIteration as done:
                grades: list[Grade] = done.value
                return [self._row(task, key, gold, grade) for (key, gold, _), grade in zip(owed, grades, strict=False)]
            yield Heartbeat(task.task_id)

    def _row(self, task: GradeTask, key: AnswerKey, gold: Gold, grade: Grade) -> GradeRow:
        prompt_id, seed, cut = key
        return GradeRow(
            context_id=task.context_id,
            answer_context_id=task.answer_context_id,
            prompt_id=prompt_id,
            seed=seed,
            cut=cut,
            gold_id=gold.gold_id,
            grader=grader_id(self._settings.grader),
            verdict=grade.verdict,
            extracted=grade.extracted or "",
            cause=grade.cause or "",
            rule=grade.rule or "",
        )

    def close(self) -> None:
        self._pool.close()


def _ungraded_texts(store: WorkerStore, task: GradeTask, grader: str) -> list[tuple[AnswerKey, Gold, AnswerText]]:
    """(answer, its gold, its text) of every `ungraded` answer."""
    if not (owed := ungraded(store, task, grader)):
        return []
    texts = read_texts(store.read("draws", task.context_id, TEXTS).to_pylist(), task.answer_context_id)
    return [(key, gold, texts[key]) for key, gold in owed]
