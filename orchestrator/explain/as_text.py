"""What `explain` prints: the explanation as text for a person, or as one JSON object with the same keys every time."""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from orchestrator.explain.draw_status import DrawState, DrawStatus
from orchestrator.explain.explain import CellStatus, ContextReport, DrawReport, Explanation, Provenance, UnknownId
from orchestrator.explain.reasons import GivenUp, Reason, moment, reasons
from orchestrator.explain.similar import SimilarEntry


def explanation_text(told: Explanation) -> str:
    """The explanation for a person."""
    if told.foreign is not None:
        lines = _foreign_lines(told.foreign)
    elif told.what is None:
        lines = _overview_lines(told)
    else:
        lines = (line for story in told.contexts for line in _context_lines(story, told.grader))
    return "\n".join(lines).strip("\n")


# --- for a person ---------------------------------------------------------------------------------------------------


def _overview_lines(told: Explanation) -> Iterator[str]:
    states = [cell.state for cell in told.cells]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("cached", "owed", "failed"))
    yield f"{told.grid}: {len(told.cells)} cells in {told.store}: {counts}"
    names = _cell_names(told.cells)
    width = max(map(len, names))
    for cell, name in zip(told.cells, names, strict=True):
        first = f"  {_first(cell.reasons)}" if cell.reasons else ""
        yield f"  {cell.state:<6}  {name:<{width}}  {cell.cached:>6} of {cell.draws}{first}"
    if told.contexts_outside_grid and "cached" not in set(states):
        yield ""
        yield (
            f"  The store holds {told.contexts_outside_grid} contexts that this grid does not ask for; "
            "name a cell to see how they differ from it"
        )
    yield from _failure_lines(told.failures)


def _cell_names(cells: tuple[CellStatus, ...]) -> list[str]:
    """The names of cells, as short as they can be; with the patch where several variants have one label."""
    models = {cell.chosen.variant.model_label for cell in cells}
    patches: dict[str, set[str]] = {}
    for cell in cells:
        patches.setdefault(cell.chosen.label, set()).add(cell.chosen.variant.patch_id)
    names = []
    for cell in cells:
        variant = cell.chosen.variant
        label = cell.chosen.label if len(models) > 1 else variant.label
        twin = f" ({variant.patch_id[:8]})" if len(patches[cell.chosen.label]) > 1 else ""
        names.append(f"{label}{twin} @ {cell.limit}")
    return names


def _first(reasons: tuple[Reason, ...]) -> str:
    first, more = reasons[0], f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    failure = first.example.failure
    told = first.sentence if failure is None else f"given up, see below: {failure['kind']}"
    return f"{first.draws}: {told}{more}"


def _context_lines(story: ContextReport, grader: str) -> Iterator[str]:
    context = story.chosen.decoding.context
    yield ""
    yield story.chosen.label
    if story.draw is not None:
        ((question, seed),) = story.chosen.draws
        yield f"  draw      {question.benchmark} {question.problem_id}, seed {seed}: {story.draw.name}"
    yield f"  patch     {context.patch_id}, {'held' if story.patch_held else 'not in the store'}"
    if story.held is None:
        yield f"  context   {context.context_id}, nothing held{' of this draw' if story.draw is not None else ''}"
    else:
        yield from _held_lines(story.held, of_draw=story.draw)
    yield f"  grader    {grader}"
    yield ""
    if story.draw is not None:
        yield from _draw_lines(story.draw, grader)
    else:
        for _, cells in groupby(story.cells, key=_told_alike):
            yield from _cell_lines(list(cells))
    if story.similar_entries:
        yield ""
        yield "  The store also holds what looks alike and is not this:"
        for one in story.similar_entries:
            yield f"    {_name_of(one)} is another: here {one.words}"


def _held_lines(held: Provenance, of_draw: DrawReport | None) -> Iterator[str]:
    amount = "" if of_draw is not None else f"{held.draws} draws in "
    yield f"  held in   {held.path}: {amount}{held.parts} part{'s' * (held.parts != 1)}"
    span = moment(held.first)
    if moment(held.last) != span:
        span += f" to {moment(held.last)}"
    yield f"  committed {span} by {', '.join(held.workers)}"
    for settings in held.engines:
        yield f"  engine    {_settings(settings)}"
    yield f"  weights   proved as sha256 {', '.join(held.weights)}"


def _settings(settings: str) -> str:
    try:
        return ", ".join(f"{name} {value}" for name, value in json.loads(settings).items())
    except (ValueError, AttributeError):
        return settings


def _told_alike(cell: CellStatus) -> tuple[Any, ...]:
    """What cells must have in common to be told together."""
    return cell.state, cell.cached, [(reason.sentence, reason.draws, reason.benchmarks) for reason in cell.reasons]


def _cell_lines(cells: list[CellStatus]) -> Iterator[str]:
    cell, limits = cells[0], ", ".join(str(cell.limit) for cell in cells)
    if cell.state == "cached":
        yield f"  @ {limits}: cached, all {cell.draws} draws are answered and graded"
        return
    yield f"  @ {limits}: {cell.state}, {cell.draws - cell.cached} of {cell.draws} draws"
    for reason in cell.reasons:
        one = reason.example
        where = ", ".join(f"{name} {count}" for name, count in reason.benchmarks.items())
        yield f"    {reason.draws:>6}  {reason.sentence}"
        yield f"            {where}; the first is {one.question.problem_id} with seed {one.seed}"


def _draw_lines(draw: DrawReport, grader: str) -> Iterator[str]:
    for one in draw.standings:
        yield f"  @ {one.limit}: {_standing_text(one, grader)}"
    for row in draw.rows:
        end = row["start"] + row["trace_tokens"]
        tokens = f"trace tokens {row['start']} to {end}" if row["trace_tokens"] else "no new trace tokens"
        cuts = ", ".join(str(answer["cut"]) for answer in row["answers"]) or "none"
        yield f"  row       {tokens}, answers at cuts {cuts}; {moment(row['created_at'])} by {row['worker']}"
    for row in draw.failures:
        yield (
            f"  given up  {moment(row['created_at'])} at attempt {row['attempts']}: {row['kind']}: {row['cause']}"
            f"{'; log ' + row['log'] if row['log'] else ''}"
        )


def _standing_text(one: DrawStatus, grader: str) -> str:
    if one.why is DrawState.CACHED and one.grade is not None:
        extracted = f" {one.grade.extracted!r}" if one.grade.extracted else ""
        ended = ", where the trace ends" if one.cut < one.limit else ""
        return f"cached, answered at cut {one.cut}{ended}: {one.grade.verdict}{extracted}"
    (reason,) = reasons([one], grader)
    return f"{'failed' if one.failed else 'owed'}, {reason.sentence}"


def _failure_lines(failures: tuple[GivenUp, ...]) -> Iterator[str]:
    if failures:
        yield ""
        yield "  Given up, and never counted as wrong; the next sweep tries them again:"
    for group in failures:
        yield f"  {group.draws:>6} draws of {group.variant}"
        yield f"         {group.sentence}"


def _foreign_lines(foreign: UnknownId) -> Iterator[str]:
    label = f" ({foreign.label})" if foreign.label else ""
    holds = f" with {foreign.draws} draws" if foreign.kind == "context" else ""
    yield f"{foreign.kind} {foreign.name}{label}: in the store{holds}, and no part of this grid"
    for one in foreign.nearest:
        yield f"    the grid's {_name_of(one)} is another: the stored one has {one.words}"
    if not foreign.nearest:
        yield "    nothing in common with the grid that is worth telling, or no payload in the store that would tell"


def _name_of(one: SimilarEntry) -> str:
    return f"{one.kind} {one.name}" + (f" ({one.label})" if one.label else "")


# --- for a program --------------------------------------------------------------------------------------------------
