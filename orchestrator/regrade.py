"""`python -m orchestrator regrade GRID.yaml [--grader NAME]`: grade the texts that the store holds, without an engine.

The same worker that grades during a sweep, in this process. The work is what the store lacks, so a second run grades
nothing and a killed one goes on: grades are committed context by context. Nothing is overwritten: a grade is a row of
its own, keyed by the grader and its version. Which grader the results use is the grid's `runtime.grader`; another one
is graded beside it. An answer on which a grader failed stays missing data (promise failure-is-not-zero).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.grading import Grade, check_grader, grader_id
from orchestrator.console import say
from orchestrator.grid.errors import InputError
from orchestrator.grid.format import Runtime
from orchestrator.grid.parse import Grid
from orchestrator.grid.validation import located
from orchestrator.plan.resolve import ResolvedGrid
from orchestrator.store.store import Store, StoreError
from workers.grade_rows import GradeKey, ungraded, verdicts
from workers.grade_worker import GradeSettings, GradeWorker
from workers.messages import Gold, Graded, GradeTask, TaskFailed
from workers.worker import Inbox

Judged = Mapping[tuple[str, GradeKey], Grade]
"""(context id, answer and gold within it) -> what a grader says of it."""


@dataclass(frozen=True)
class Regraded:
    """What one run of `regrade` did, and how its grader stands to the one that the results use."""

    grader: str
    reference: str
    """The grid's own grader."""
    graded: int
    """Answers that were graded by this run."""
    held: int
    """Answers that have this grader's grade now."""
    failed: Mapping[str, int]
    """Why the grader failed -> how many of the `held` answers it failed on; they are missing data."""
    compared: int
    """Answers on which both graders have a verdict; 0 when they are one and the same."""
    disagree: int

    def lines(self) -> list[str]:
        """The summary for a person."""
        lines = [f"{self.grader}: {self.graded} answers graded, {self.held} held"]
        if self.failed:
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(self.failed.items()))
            lines.append(
                f"{self.grader}: failed on {sum(self.failed.values())} ({causes}): missing data, not scored as wrong"
            )
        if self.compared:
            lines.append(f"{self.grader} and {self.reference} disagree on {self.disagree} of {self.compared} answers")
        return lines


def choose_grader(grid: Grid, name: str | None) -> str:
    """The grader called `name`, or the grid's own. Raises InputError with the nearest name if there is none such."""
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
    """Grade what `store` holds of `resolved`'s answers and `grader` has not judged.

    Raises StoreError if the store holds no answer of the grid at all, or cannot be written.
    """
    reference = resolved.grid.runtime.grader
    tasks = _tasks(store, resolved)
    if not tasks:
        raise StoreError(
            f"store {store.uri} holds no answers of {resolved.grid.source.name}, so there is nothing to grade; "
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
    """One per context that the store has draws of. Variants of two entries that share a context share its task."""
    present = store.contexts("draws")
    golds: dict[tuple[str, str], dict[Gold, None]] = {}
    for variant in resolved.variants:
        for decoding in variant.decodings:
            context = decoding.context
            if context.context_id in present:
                wanted = golds.setdefault((context.context_id, context.answer_context_id), {})
                wanted |= dict.fromkeys(question.gold for question in variant.questions)
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
                        say(f"{grader}: {answers} answers of context {number} of {len(tasks)} graded and committed")
                    case TaskFailed(failure=failure):
                        raise StoreError(f"{failure.cause}; the grades of the contexts before it are committed")
    finally:
        worker.close()
    return graded


def _judged(store: Store, tasks: Sequence[GradeTask], grader: str) -> Judged:
    """What one grader says of the answers of `tasks`, against the golds that the benchmarks hold today."""
    judged = {}
    for task in tasks:
        golds = {(gold.prompt_id, gold.gold_id) for gold in task.golds}
        rows = store.read("grades", task.context_id).to_pylist()
        for answer, grade in verdicts(rows, task.answer_context_id, grader_id(grader)).items():
            prompt, _, _, gold = answer
            if (prompt, gold) in golds:
                judged[task.context_id, answer] = grade
    return judged
