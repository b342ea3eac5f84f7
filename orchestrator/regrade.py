"""`python -m orchestrator regrade GRID.yaml [--grader NAME]`: grade the stored answers, without an engine.

Runs the worker that grades during a sweep, in this process. It grades only answers that the grader has not judged, and
commits context by context, so a killed run resumes and a second run grades only what failed. Nothing is overwritten: a
grade is a row of its own, keyed by grader and version, and the results use the grid's `runtime.grader`. So a new
version of a grader brings an old store up to date beside the old verdicts, and those that differ are listed, as are the
answers on which two graders disagree. An answer on which grading failed stays missing data and is never counted as
wrong.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.grading import Grade, check_grader, grader_id, newest_before
from orchestrator.console import plural, say
from orchestrator.grid.errors import InputError
from orchestrator.grid.format import Runtime
from orchestrator.grid.parse import Grid
from orchestrator.grid.validation import located
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.store.store import Store, StoreError
from workers.grade_worker import GradeSettings, GradeWorker
from workers.messages import Context, Gold, Graded, GradeTask, TaskFailed
from workers.rows.grade_rows import GradeKey, ungraded, verdicts
from workers.worker import Inbox

Judged = Mapping[tuple[str, GradeKey], Grade]
"""(context id, answer and gold within it) -> a grader's verdict."""
SHOWN = 20
"""Answers listed for a person; --json has all."""


@dataclass(frozen=True)
class Disagreement:
    """An answer on which two graders, or two versions of one, have different verdicts."""

    variant: str
    benchmark: str
    problem_id: str
    seed: int
    cut: int
    """Thinking tokens before the answer: the limit, or less where the thinking ended before it."""
    new: Grade
    other: Grade


@dataclass(frozen=True)
class Differences:
    """How the verdicts of a grader differ from those of another, or of its own version before."""

    other: str
    """The other grader as the store names it: name and version."""
    compared: int
    """Answers on which both have a verdict."""
    gained: int
    """Answers that the other failed on and this grader has judged."""
    answers: tuple[Disagreement, ...]


@dataclass(frozen=True)
class Regraded:
    """What one run of `regrade` did, and how its verdicts differ from others in the store."""

    grader: str
    reference: str
    """The grid's own grader."""
    graded: int
    """Answers that this run graded."""
    stored: int
    """Answers that now have a grade by this grader."""
    failed: Mapping[str, int]
    """Cause -> how many of the `stored` answers grading failed on; those are missing data."""
    defeated: Mapping[str, int]
    """Cause -> how many of the `stored` answers are wrong because their text stops the grader."""
    against_reference: Differences | None
    """None if the grader is the grid's own."""
    against_before: Differences | None
    """Against the newest version before this one that the store has; None if it has none."""

    def lines(self) -> Iterator[str]:
        """The summary for a person."""
        yield f"{self.grader}: {plural(self.graded, 'answer')} graded, {self.stored:,} stored"
        if self.failed:
            yield f"{self.grader}: failed on {_counted(self.failed)}: missing data, not scored as wrong"
        if self.defeated:
            yield f"{self.grader}: stopped by the text of {_counted(self.defeated)}: scored as wrong, with the cause"
        if (found := self.against_reference) is not None and found.compared:
            said = f"{len(found.answers):,} of {found.compared:,} answers"
            yield f"{self.grader} and {self.reference} disagree on {said}"
            yield from _listed(found, self.grader, self.reference)
        if (found := self.against_before) is not None:
            said = f"{len(found.answers):,} of {found.compared:,} verdicts of {found.other}"
            gained = f", and judges {plural(found.gained, 'answer')} that it failed on" if found.gained else ""
            yield f"{grader_id(self.grader)} changes {said}{gained}"
            yield from _listed(found, "now", "before")

    def json(self) -> str:
        """One object with every count and every disagreement."""
        return json.dumps(asdict(self))


def _counted(causes: Mapping[str, int]) -> str:
    return f"{sum(causes.values())} ({', '.join(f'{cause} {count}' for cause, count in sorted(causes.items()))})"


def _listed(found: Differences, new: str, other: str) -> Iterator[str]:
    """A table of the first answers, verdicts and what was extracted side by side."""
    if not found.answers:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("variant", "benchmark", "problem", "seed", "cut", new, other):
        table.add_column(Text(heading), no_wrap=True)
    for one in found.answers[:SHOWN]:
        where = (one.variant, one.benchmark, one.problem_id, str(one.seed), str(one.cut))
        table.add_row(*map(Text, (*where, one.new.spelled(), one.other.spelled())))
    text = StringIO()
    Console(file=text, width=1000, force_terminal=False).print(table)
    yield from (f"  {line.rstrip()}" for line in text.getvalue().splitlines())
    if (more := len(found.answers) - SHOWN) > 0:
        yield f"  and {more:,} more; --json lists all"


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
    name = grader_id(grader)
    owed = [task for task in tasks if ungraded(store, task, name)]
    graded = _grade(store, owed, grader, resolved.grid.runtime) if owed else 0
    judged = _judged(store, tasks, name)
    before = newest_before(name, _graders(store, tasks))
    return Regraded(
        grader,
        reference,
        graded,
        len(judged),
        _causes(grade for grade in judged.values() if grade.grader_failed),
        _causes(grade for grade in judged.values() if grade.defeated_grader),
        _differences(store, resolved, tasks, judged, grader_id(reference)) if reference != grader else None,
        _differences(store, resolved, tasks, judged, before) if before is not None else None,
    )


def _causes(grades: Iterator[Grade]) -> Mapping[str, int]:
    return Counter(str(grade.cause).split(":")[0] for grade in grades)


def _tasks(store: Store, resolved: ResolvedGrid) -> list[GradeTask]:
    """One task per stored context; variants with the same context share it."""
    present = store.contexts("draws")
    golds: dict[tuple[str, str], tuple[Context, dict[Gold, None]]] = {}
    for variant in resolved.variants:
        for decoding in variant.decodings:
            context = decoding.context
            if context.context_id in present:
                name = (context.context_id, context.answer_context_id)
                _, of_context = golds.setdefault(name, (context, {}))
                of_context.update(dict.fromkeys(question.gold for question in variant.questions))
    return [GradeTask.of(f"regrade-{context.context_id}", context, owed) for context, owed in golds.values()]


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
        for answer, grade in verdicts(rows, task.answer_context_id, grader).items():
            prompt, _, _, gold = answer
            if (prompt, gold) in golds:
                judged[task.context_id, answer] = grade
    return judged


def _graders(store: Store, tasks: Sequence[GradeTask]) -> set[str]:
    """Every grader, with its version, that has judged an answer of `tasks`."""
    return {name for task in tasks for name in store.read("grades", task.context_id, ["grader"])["grader"].to_pylist()}


def _differences(
    store: Store, resolved: ResolvedGrid, tasks: Sequence[GradeTask], judged: Judged, other: str
) -> Differences:
    others = _judged(store, tasks, other)
    places = _places(resolved)
    compared, gained, found = 0, 0, []
    for answer, grade in judged.items():
        before = others.get(answer)
        if before is None or grade.grader_failed:
            continue
        if before.grader_failed:
            gained += 1
            continue
        compared += 1
        if grade.verdict != before.verdict:
            context, (prompt, seed, cut, gold) = answer
            found.append(Disagreement(*places[context, prompt, gold], seed, cut, grade, before))
    return Differences(other, compared, gained, tuple(found))


def _places(resolved: ResolvedGrid) -> Mapping[tuple[str, str, str], tuple[str, str, str]]:
    """(context id, prompt id, gold id) -> (variant, benchmark, problem id), the first if several share it."""
    several = len({variant.model_label for variant in resolved.variants}) > 1
    places: dict[tuple[str, str, str], tuple[str, str, str]] = {}
    for variant in resolved.variants:
        label = variant.full_label if several else variant.label
        for decoding in variant.decodings:
            for one in variant.questions:
                name = (decoding.context.context_id, one.gold.prompt_id, one.gold.gold_id)
                places.setdefault(name, (label, one.benchmark, one.problem_id))
    return places
