"""Results, computed from the store alone: cells with their metrics, and each variant compared with dense.

Nothing is kept: the table, the report and MLflow are views of what this module reads.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from eval.comparison import Adjusted, Comparison, adjust, compare
from eval.draws import answer_for
from eval.grading import Grade, grader_id
from eval.metrics import CellMetrics, Outcome, cell_metrics
from orchestrator.plan.resolved_grid import Decoding, Question, ResolvedGrid, ResolvedVariant
from orchestrator.results.old_loops import loops_of
from orchestrator.store.store import Store
from workers.rows.draw_rows import SUMMARY, DrawSummary, summarise_rows
from workers.rows.grade_rows import GradeKey, verdicts


@dataclass(frozen=True)
class CellResult:
    """One variant on one benchmark at one token limit."""

    variant: ResolvedVariant
    benchmark: str
    limit: int
    metrics: CellMetrics
    outcomes: tuple[Outcome, ...]
    finished_at: float
    """When its last draw was committed, in seconds since the epoch; 0 without draws."""


@dataclass(frozen=True)
class AgainstDense:
    """A cell compared with dense, and its p-value corrected for all comparisons of the grid."""

    comparison: Comparison
    adjusted: Adjusted
    if_missing: Adjusted
    """The same for `comparison.p_if_missing`."""


@dataclass(frozen=True)
class Results:
    """Every cell of a grid, in grid order, as far as it is stored."""

    resolved: ResolvedGrid
    cells: tuple[CellResult, ...]
    against_dense: Mapping[tuple[str, str, int], AgainstDense]
    """(patch id, benchmark, limit) -> comparison, where both variants have graded draws in common."""

    @property
    def complete(self) -> bool:
        return not self.resolved.awaiting and all(cell.metrics.complete for cell in self.cells)


@dataclass(frozen=True)
class _Stored:
    """What is stored of one context."""

    draws: Mapping[tuple[str, int], DrawSummary]
    loops: Mapping[tuple[str, int], int]
    """After how many tokens of each draw's trace a loop is established; 0 if none is."""
    grades: Mapping[GradeKey, Grade]


def read_results(store: Store, resolved: ResolvedGrid) -> Results:
    """Read all cells of `resolved` from `store`, and compare them with dense."""
    with _uncollected():
        cells = tuple(cell for variant in resolved.variants for cell in read_cells(store, resolved, variant))
        return Results(resolved, cells, _against_dense(resolved, cells))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: the values made here have none, and to walk them again and again takes a fifth
    of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_cells(store: Store, resolved: ResolvedGrid, variant: ResolvedVariant) -> list[CellResult]:
    """Read the cells of one variant: benchmarks × token limits. Reads no token of a trace or answer."""
    stored = [(decoding.limits, _read(store, resolved, variant, decoding)) for decoding in variant.decodings]
    seeds = resolved.grid.sampling.seeds
    cells = []
    for benchmark in resolved.benchmarks:
        questions = [q for q in variant.questions if q.benchmark == benchmark.name]
        owed = [(q.problem_id, seed) for q in questions for seed in seeds]
        for limits, context in stored:
            for limit, found in _outcomes(questions, seeds, limits, context).items():
                outcomes = tuple(outcome for outcome, _ in found)
                finished = max((committed_at for _, committed_at in found), default=0.0)
                cells.append(
                    CellResult(variant, benchmark.name, limit, cell_metrics(outcomes, owed), outcomes, finished)
                )
    return cells


def _read(store: Store, resolved: ResolvedGrid, variant: ResolvedVariant, decoding: Decoding) -> _Stored:
    context = decoding.context
    rows = store.read("draws", context.context_id, SUMMARY).to_pylist()
    draws = summarise_rows(rows, context.answer_context_id)
    grades = store.read("grades", context.context_id).to_pylist()
    return _Stored(
        draws,
        loops_of(store, variant, context.context_id, draws),
        verdicts(grades, context.answer_context_id, grader_id(resolved.grid.runtime.grader)),
    )


def _outcomes(
    questions: Iterable[Question], seeds: Sequence[int], limits: Sequence[int], stored: _Stored
) -> dict[int, list[tuple[Outcome, float]]]:
    """Limit -> (outcome, commit time) of each draw that is stored, answered at the limit and graded."""
    found: dict[int, list[tuple[Outcome, float]]] = {limit: [] for limit in limits}
    for question in questions:
        for seed in seeds:
            name = (question.gold.prompt_id, seed)
            draw = stored.draws.get(name)
            if draw is None:
                continue
            outcomes: dict[int, Outcome | None] = {}
            for limit in limits:
                answer = answer_for(limit, draw.length, draw.ended, draw.answers)
                if answer is None:
                    continue
                cut = answer["cut"]
                if cut not in outcomes:  # limits that share an answer share its outcome
                    grade = stored.grades.get((*name, cut, question.gold.gold_id))
                    outcomes[cut] = (
                        _outcome(question.problem_id, seed, answer, grade, stored.loops[name]) if grade else None
                    )
                if (outcome := outcomes[cut]) is not None:
                    found[limit].append((outcome, draw.created_at))
    return found


def _outcome(problem_id: str, seed: int, answer: Mapping[str, Any], grade: Grade, loop_at: int) -> Outcome:
    return Outcome(
        problem_id=problem_id,
        seed=seed,
        grade=grade,
        thinking_tokens=answer["thinking_tokens"],
        answer_tokens=answer["answer_tokens"],
        forced=answer["forced"],
        cap_hit=answer["cap_hit"],
        reopened_thinking=answer["reopened_thinking"],
        looped=0 < loop_at <= answer["cut"],
    )


def _against_dense(resolved: ResolvedGrid, cells: tuple[CellResult, ...]) -> dict[tuple[str, str, int], AgainstDense]:
    by_name = {(cell.variant.patch_id, cell.benchmark, cell.limit): cell for cell in cells}
    found: dict[tuple[str, str, int], Comparison] = {}
    for name, cell in by_name.items():
        dense = resolved.dense_of(cell.variant)
        if dense is None or cell.variant.dense:
            continue
        base = by_name[(dense.patch_id, cell.benchmark, cell.limit)]
        with suppress(ValueError):  # they have no graded draw in common
            seeds = resolved.grid.sampling.seeds
            owed = [(q.problem_id, s) for q in cell.variant.questions if q.benchmark == cell.benchmark for s in seeds]
            found[name] = compare(cell.outcomes, base.outcomes, planned=owed)
    adjusted = adjust([comparison.p_permutation for comparison in found.values()])
    if_missing = adjust([comparison.p_if_missing for comparison in found.values()])
    rows = zip(found.items(), adjusted, if_missing, strict=True)
    return {name: AgainstDense(comparison, one, other) for (name, comparison), one, other in rows}
