"""What `explain` found, for a person."""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from orchestrator.console import plural
from orchestrator.explain.draw_status import DrawState, DrawStatus
from orchestrator.explain.explain import CellStatus, ContextReport, DrawReport, Explanation, Provenance, UnknownId
from orchestrator.explain.reasons import GivenUp, Reason, local_time, reasons
from orchestrator.explain.similar import SimilarEntry


def explanation_text(explanation: Explanation) -> str:
    """One line per cell; or, if WHAT was given, a block per context."""
    if explanation.unknown_id is not None:
        lines = _unknown_id_lines(explanation.unknown_id)
    elif explanation.what is None:
        lines = _overview_lines(explanation)
    else:
        lines = (line for report in explanation.contexts for line in _context_lines(report, explanation.grader))
    return "\n".join(lines).strip("\n")


def _overview_lines(explanation: Explanation) -> Iterator[str]:
    states = [cell.state for cell in explanation.cells]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "owed", "failed"))
    yield f"{explanation.grid}: {plural(len(states), 'cell')} in {explanation.store}: {counts}"
    names = _cell_names(explanation.cells)
    width = max(map(len, names))
    for cell, name in zip(explanation.cells, names, strict=True):
        first = f"  {_first_reason(cell.reasons)}" if cell.reasons else ""
        yield f"  {cell.state:<8}  {name:<{width}}  {cell.complete:>6} of {cell.draws}{first}"
    if explanation.contexts_outside_grid and "complete" not in set(states):
        yield ""
        yield (
            f"  The store also has {plural(explanation.contexts_outside_grid, 'context')} that this grid does not ask "
            "for; name a cell to see how they differ from it"
        )
    yield from _failure_lines(explanation.failures)


def _cell_names(cells: tuple[CellStatus, ...]) -> list[str]:
    """The names of cells, as short as they can be; with the patch id where several variants have one label."""
    models = {cell.selected.variant.model_label for cell in cells}
    patches: dict[str, set[str]] = {}
    for cell in cells:
        patches.setdefault(cell.selected.label, set()).add(cell.selected.variant.patch_id)
    names = []
    for cell in cells:
        variant = cell.selected.variant
        label = cell.selected.label if len(models) > 1 else variant.label
        patch = f" ({variant.patch_id[:8]})" if len(patches[cell.selected.label]) > 1 else ""
        names.append(f"{label}{patch} @ {cell.limit}")
    return names


def _first_reason(reasons: tuple[Reason, ...]) -> str:
    first, more = reasons[0], f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    failure = first.example.failure
    sentence = first.sentence if failure is None else f"given up, see below: {failure['kind']}"
    return f"{first.draws}: {sentence}{more}"


def _context_lines(report: ContextReport, grader: str) -> Iterator[str]:
    context = report.selected.decoding.context
    yield ""
    yield report.selected.label
    if report.draw is not None:
        ((question, seed),) = report.selected.draws
        yield f"  draw      {question.benchmark} {question.problem_id}, seed {seed}: {report.draw.name}"
    yield f"  patch     {context.patch_id}, {'stored' if report.patch_stored else 'not in the store'}"
    if report.provenance is None:
        what = "this draw is not in the store" if report.draw is not None else "no draws in the store"
        yield f"  context   {context.context_id}, {what}"
    else:
        yield from _provenance_lines(report.provenance, report.draw)
    yield f"  grader    {grader}"
    yield ""
    if report.draw is not None:
        yield from _draw_lines(report.draw, grader)
    else:
        for _, cells in groupby(report.cells, key=_content):
            yield from _cell_lines(list(cells))
    if report.similar:
        yield ""
        yield "  Similar, but not the same, in the store:"
        for one in report.similar:
            yield f"    {_name_of(one)}: here {one.words}"


def _provenance_lines(provenance: Provenance, draw: DrawReport | None) -> Iterator[str]:
    amount = "" if draw is not None else f"{plural(provenance.draws, 'draw')} in "
    yield f"  stored in {provenance.path}: {amount}{plural(provenance.parts, 'part')}"
    span = local_time(provenance.first)
    if local_time(provenance.last) != span:
        span += f" to {local_time(provenance.last)}"
    yield f"  committed {span} by {', '.join(provenance.workers)}"
    for settings in provenance.engines:
        yield f"  engine    {_settings(settings)}"
    yield f"  weights   proved as sha256 {', '.join(provenance.weights)}"


def _settings(settings: str) -> str:
    try:
        return ", ".join(f"{name} {value}" for name, value in json.loads(settings).items())
    except (ValueError, AttributeError):
        return settings


def _content(cell: CellStatus) -> tuple[Any, ...]:
    """Neighbouring cells for which this is equal share one block of lines."""
    return cell.state, cell.complete, [(reason.sentence, reason.draws, reason.benchmarks) for reason in cell.reasons]


def _cell_lines(cells: list[CellStatus]) -> Iterator[str]:
    cell, limits = cells[0], ", ".join(str(cell.limit) for cell in cells)
    if cell.state == "complete":
        yield f"  @ {limits}: complete, all {cell.draws} draws are answered and graded"
        return
    yield f"  @ {limits}: {cell.state}, {cell.draws - cell.complete} of {cell.draws} draws"
    for reason in cell.reasons:
        one = reason.example
        where = ", ".join(f"{name} {count}" for name, count in reason.benchmarks.items())
        yield f"    {reason.draws:>6}  {reason.sentence}"
        yield f"            {where}; the first is {one.question.problem_id} with seed {one.seed}"


def _draw_lines(draw: DrawReport, grader: str) -> Iterator[str]:
    for one in draw.statuses:
        yield f"  @ {one.limit}: {_status_text(one, grader)}"
    for row in draw.rows:
        end = row["start"] + row["trace_tokens"]
        tokens = f"trace tokens {row['start']} to {end}" if row["trace_tokens"] else "no new trace tokens"
        cuts = ", ".join(str(answer["cut"]) for answer in row["answers"]) or "none"
        yield f"  row       {tokens}, answers at cuts {cuts}; {local_time(row['created_at'])} by {row['worker']}"
    for row in draw.failures:
        yield (
            f"  given up  {local_time(row['created_at'])} after {plural(row['attempts'], 'attempt')}: {row['kind']}: "
            f"{row['cause']}{'; log ' + row['log'] if row['log'] else ''}"
        )


def _status_text(one: DrawStatus, grader: str) -> str:
    if one.state is DrawState.COMPLETE and one.grade is not None:
        extracted = f" {one.grade.extracted!r}" if one.grade.extracted else ""
        ended = ", where the trace ends" if one.cut < one.limit else ""
        return f"complete, answered at cut {one.cut}{ended}: {one.grade.verdict}{extracted}"
    (reason,) = reasons([one], grader)
    return f"{'failed' if one.failed else 'owed'}: {reason.sentence}"


def _failure_lines(failures: tuple[GivenUp, ...]) -> Iterator[str]:
    if failures:
        yield ""
        yield "  Given up; missing, never counted as wrong. The next sweep tries them again:"
    for group in failures:
        yield f"  {plural(group.draws, 'draw'):>12} of {group.variant}"
        yield f"               {group.sentence}"


def _unknown_id_lines(unknown: UnknownId) -> Iterator[str]:
    label = f" ({unknown.label})" if unknown.label else ""
    draws = f" with {plural(unknown.draws, 'draw')}" if unknown.kind == "context" else ""
    yield f"{unknown.kind} {unknown.name}{label}: in the store{draws}, but no part of this grid"
    for one in unknown.nearest:
        yield f"    nearest in the grid: {_name_of(one)}; the stored one has {one.words}"
    if not unknown.nearest:
        yield "    nothing in the grid is similar to it, or the store lacks the payload to compare"


def _name_of(one: SimilarEntry) -> str:
    return f"{one.kind} {one.name}" + (f" ({one.label})" if one.label else "")
