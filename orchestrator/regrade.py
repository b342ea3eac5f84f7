"""`python -m orchestrator regrade GRID.yaml [--grader NAME]`: grade the stored answers, without an engine.

Runs the worker that grades during a sweep, in this process. It grades only answers that the grader has not judged, and
commits context by context, so a killed run resumes and a second run grades only what failed. Nothing is overwritten: a
grade is a row of its own, keyed by grader and version, and the results use the grid's `runtime.grader`. An answer on
which a grader fails stays missing data and is never counted as wrong.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.grading import Grade, check_grader, grader_id
from orchestrator.console import plural, say
from orchestrator.grid.errors import InputError
from orchestrator.grid.format import Runtime
from orchestrator.grid.parse import Grid
from orchestrator.grid.validation import located
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.store.store import Store, StoreError
from workers.grade_worker import GradeSettings, GradeWorker
from workers.messages import Gold, Graded, GradeTask, TaskFailed
from workers.rows.grade_rows import GradeKey, ungraded, verdicts
from workers.worker import Inbox

Judged = Mapping[tuple[str, GradeKey], Grade]
"""(context id, answer and gold within it) -> a grader's verdict."""


@dataclass(frozen=True)
class Regraded:
    """What one run of `regrade` did, and how its grader compares with the one that the results use."""

    grader: str
    reference: str
    """The grid's own grader."""
    graded: int
    """Answers that this run graded."""
    stored: int
    """Answers that now have a grade by this grader."""
    failed: Mapping[str, int]
    """Cause -> how many of the `stored` answers the grader failed on; those are missing data."""
    compared: int
    """Answers on which both graders have a verdict; 0 if they are the same grader."""
    disagree: int

    def lines(self) -> list[str]:
        """The summary for a person."""
        lines = [f"{self.grader}: {plural(self.graded, 'answer')} graded, {self.stored:,} stored"]
        if self.failed:
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(self.failed.items()))
            lines.append(
                f"{self.grader}: failed on {sum(self.failed.values())} ({causes}): missing data, not scored as wrong"
            )
        if self.compared:
            lines.append(f"{self.grader} and {self.reference} disagree on {self.disagree} of {self.compared} answers")
        return lines


def choose_grader(grid: Grid, name: str | None) -> str:
    """The grader called `name`, or the grid's own. Raises InputError, with the nearest name, for an unknown one."""
    with located(grid.source, ("runtime", "grader")):
        check_grader(grid.runtime.grader)
    if name is None:
        return grid.runtime.grader
    try:
        check_grader(name)
    except ValueError as error:
        raise InputError(f"--grader: {error}") from None
    return name


def regrade(store: Store, resolved: ResolvedGrid, grader: str) -> Regraded:
    """Grade those of `resolved`'s stored answers that `grader` has not judged.

    Raises StoreError if the store has no answer of the grid, or cannot be written.
    """
    reference = resolved.grid.runtime.grader
    tasks = _tasks(store, resolved)
    if not tasks:
        raise StoreError(
            f"store {store.uri} has no answers of {resolved.grid.source.name}, so there is nothing to grade; "
            f"run `python -m orchestrator.sweep {resolved.grid.source.name}` first, or name another --store"
        )
    owed = [task for task in tasks if ungraded(store, task, grader_id(grader))]
    graded = _grade(store, owed, grader, resolved.grid.runtime) if owed else 0
    judged = _judged(store, tasks, grader)
    others = _judged(store, tasks, reference) if reference != grader else {}
    both = [
        (judged[answer].verdict, others[answer].verdict)
        for answer in judged.keys() & others.keys()
        if not judged[answer].grader_failed and not others[answer].grader_failed
    ]
    return Regraded(
        grader,
        reference,
        graded,
        len(judged),
        Counter(str(grade.cause).split(":")[0] for grade in judged.values() if grade.grader_failed),
        len(both),
        sum(one != other for one, other in both),
    )


def _tasks(store: Store, resolved: ResolvedGrid) -> list[GradeTask]:
    """One task per stored context; variants with the same context share it."""
    present = store.contexts("draws")
    golds: dict[tuple[str, str], dict[Gold, None]] = {}
    for variant in resolved.variants:
        for decoding in variant.decodings:
            context = decoding.context
            if context.context_id in present:
                of_context = golds.setdefault((context.context_id, context.answer_context_id), {})
                of_context |= dict.fromkeys(question.gold for question in variant.questions)
    return [GradeTask(f"regrade-{context}", context, answers, tuple(g)) for (context, answers), g in golds.items()]


def _grade(store: Store, tasks: Sequence[GradeTask], grader: str, runtime: Runtime) -> int:
    settings = GradeSettings(grader, runtime.grader_processes, runtime.grader_seconds)
    worker = GradeWorker("regrade", store, settings)
    graded = 0
    try:
        for number, task in enumerate(tasks, 1):
            for report in worker.run(task, Inbox()):
                match report:
                    case Graded(answers=answers):
                        graded += answers
                        progress = f"context {number} of {len(tasks)}"
                        say(f"{grader}: {plural(answers, 'answer')} of {progress} graded and committed")
                    case TaskFailed(failure=failure):
                        raise StoreError(f"{failure.cause}; the grades of the contexts before it are committed")
    finally:
        worker.close()
    return graded


def _judged(store: Store, tasks: Sequence[GradeTask], grader: str) -> Judged:
    """One grader's verdicts on the answers of `tasks`, against the benchmarks' current gold answers."""
    judged = {}
    for task in tasks:
        golds = {(gold.prompt_id, gold.gold_id) for gold in task.golds}
        rows = store.read("grades", task.context_id).to_pylist()
        for answer, grade in verdicts(rows, task.answer_context_id, grader_id(grader)).items():
            prompt, _, _, gold = answer
            if (prompt, gold) in golds:
                judged[task.context_id, answer] = grade
    return judged
