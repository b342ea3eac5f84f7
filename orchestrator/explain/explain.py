"""`python -m orchestrator explain GRID.yaml [WHAT]`: why a cell or a draw is cached, owed, or not what it looks like.

Reads the store and computes nothing anew: what is owed follows the rules that the plan follows, what failed is in the
failures table and in grades without a verdict, and what looks alike is told by payloads. Contexts are read one at a
time, and only those asked about. `explaining.py` words the result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eval.grading import grader_id
from orchestrator.explain.draw_status import ContextRows, DrawStatus, StoreIndex, draw_status, list_store, read_context
from orchestrator.explain.reasons import GivenUp, Reason, given_up, reasons, state_of
from orchestrator.explain.selection import SelectedContext, Selection, find_chosen
from orchestrator.explain.similar import Payloads, SimilarEntry, contexts_outside_grid, nearest_to, similar_entries
from orchestrator.grid.errors import InputError
from orchestrator.plan.resolve import ResolvedGrid
from orchestrator.store.store import Store


@dataclass(frozen=True)
class CellStatus:
    """One variant at one token limit, over all benchmarks or over the draws asked about."""

    chosen: SelectedContext
    limit: int
    state: str
    """cached, owed or failed."""
    draws: int
    cached: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Provenance:
    """What the store has of one context, and where it came from."""

    path: str
    parts: int
    draws: int
    first: float
    last: float
    """When the first and the last row were committed, in seconds since the epoch."""
    workers: tuple[str, ...]
    engines: tuple[str, ...]
    """The engines' settings that can shift numerics, as canonical JSON; several if they were mixed."""
    weights: tuple[str, ...]
    """Digests of the weights that were proved; more than one means that something is wrong."""


@dataclass(frozen=True)
class DrawReport:
    """One draw: how it stands at each limit, and the rows that make it up."""

    name: str
    """CONTEXT/PROMPT/SEED."""
    standings: tuple[DrawStatus, ...]
    rows: tuple[Mapping[str, Any], ...]
    failures: tuple[Mapping[str, Any], ...]
    """Every time it was given up, oldest first, also if it was made since."""


@dataclass(frozen=True)
class ContextReport:
    """One context looked at closely."""

    chosen: SelectedContext
    patch_held: bool
    held: Provenance | None
    cells: tuple[CellStatus, ...]
    similar_entries: tuple[SimilarEntry, ...]
    draw: DrawReport | None


@dataclass(frozen=True)
class UnknownId:
    """A patch or context that is in the store and is no part of the grid, and what of the grid is nearest to it."""

    kind: str
    name: str
    label: str
    draws: int
    nearest: tuple[SimilarEntry, ...]


@dataclass(frozen=True)
class Explanation:
    """The answer. `contexts` and `foreign` only where something was asked about by name."""

    grid: str
    store: str
    what: str | None
    grader: str
    cells: tuple[CellStatus, ...]
    contexts: tuple[ContextReport, ...]
    failures: tuple[GivenUp, ...]
    contexts_outside_grid: int
    """How many contexts hold draws and are no part of the grid."""
    foreign: UnknownId | None = None


@dataclass(frozen=True)
class _Sources:
    """Where answers come from."""

    store: Store
    resolved: ResolvedGrid
    present: StoreIndex
    payloads: Payloads


def explain(store: Store, resolved: ResolvedGrid, what: str | None, selection: Selection) -> Explanation:
    """Explain `what`, or every cell in one line if it is None. Raises InputError for a name that there is not."""
    chosen = find_chosen(resolved, what, selection)
    grader = grader_id(resolved.grid.runtime.grader)
    sources = _Sources(store, resolved, list_store(store), Payloads(store, resolved))
    if not chosen:
        assert what is not None, "a grid has cells"
        foreign = _foreign(sources, what.split("/")[0])
        return Explanation(resolved.grid.name, store.uri, what, grader, (), (), (), 0, foreign)
    cells: list[CellStatus] = []
    stories: list[ContextReport] = []
    failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]] = {}
    for one in chosen:
        reading = read_context(store, one.decoding.context, grader, sources.present, closely=what is not None)
        told = _cells(reading, one, failures)
        cells += told
        if what is not None:
            stories.append(_context(sources, reading, one, told))
    return Explanation(
        resolved.grid.name,
        store.uri,
        what,
        grader,
        tuple(cells),
        tuple(stories),
        given_up(failures.values()),
        len(contexts_outside_grid(sources.present, resolved)),
    )


def _cells(
    reading: ContextRows, chosen: SelectedContext, failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]]
) -> tuple[CellStatus, ...]:
    first, *others = chosen.limits
    if not reading.rows and not reading.given_up:  # most of a large grid, at first: every limit stands alike
        story = _cell(reading, chosen, first, failures)
        return (story, *(replace(story, limit=limit) for limit in others))
    return tuple(_cell(reading, chosen, limit, failures) for limit in chosen.limits)


def _cell(
    reading: ContextRows,
    chosen: SelectedContext,
    limit: int,
    failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]],
) -> CellStatus:
    """One cell's story; the failures met on the way are added to `failures`, each draw once."""
    found = [draw_status(reading, question, seed, limit) for question, seed in chosen.draws]
    for one in found:
        if one.failure is not None:
            key = (one.failure["context_id"], one.failure["prompt_id"], one.failure["seed"])
            failures[key] = (chosen.label, one.failure)
    why = reasons(found, reading.grader)
    cached = len(found) - sum(reason.draws for reason in why)
    return CellStatus(chosen, limit, state_of(found), len(found), cached, why)


def _context(
    sources: _Sources, reading: ContextRows, chosen: SelectedContext, cells: tuple[CellStatus, ...]
) -> ContextReport:
    context = chosen.decoding.context
    others = {row["answer_context_id"] for row in reading.rows} - {context.answer_context_id}
    draw = _draw(sources.store, reading, chosen) if len(chosen.draws) == 1 else None
    held = _held(sources.store, context.context_id, reading.rows if draw is None else draw.rows)
    alike = similar_entries(sources.present, sources.resolved, context, sorted(others), sources.payloads)
    return ContextReport(chosen, reading.patch_held, held, cells, alike, draw)


def _held(store: Store, context_id: str, rows: Iterable[Mapping[str, Any]]) -> Provenance | None:
    if not (rows := list(rows)):
        return None
    moments = [row["created_at"] for row in rows]
    return Provenance(
        f"{store.uri}/draws/{context_id}",
        len(store.parts("draws", context_id, ["seed"])),
        len({(row["prompt_id"], row["seed"]) for row in rows}),
        min(moments),
        max(moments),
        *(tuple(sorted({row[column] for row in rows})) for column in ("worker", "engine", "weights_digest")),
    )


def _draw(store: Store, reading: ContextRows, chosen: SelectedContext) -> DrawReport:
    ((question, seed),) = chosen.draws
    context, prompt = reading.context.context_id, question.gold.prompt_id
    failures = store.read("failures", context).to_pylist()
    return DrawReport(
        f"{context}/{prompt}/{seed}",
        tuple(draw_status(reading, question, seed, limit) for limit in chosen.limits),
        _rows_of(reading.rows, prompt, seed, "start"),
        _rows_of(failures, prompt, seed, "created_at"),
    )


def _rows_of(rows: Iterable[Mapping[str, Any]], prompt: str, seed: int, order: str) -> tuple[Mapping[str, Any], ...]:
    mine = [row for row in rows if (row["prompt_id"], row["seed"]) == (prompt, seed)]
    return tuple(sorted(mine, key=lambda row: (row[order], row["created_at"])))


def _foreign(sources: _Sources, prefix: str) -> UnknownId:
    present, variants = sources.present, sources.resolved.variants
    kinds = dict.fromkeys(present.patches, "patch") | dict.fromkeys(present.contexts["draws"], "context")
    found = sorted(name for name in kinds if name.startswith(prefix))
    if len(found) != 1:
        several = f"{len(found)} ids of the store begin so: {', '.join(found)}; give more digits"
        none = (
            "neither the grid nor the store has a patch or context whose id begins so; `plan --json` lists the grid's"
        )
        raise InputError(f"{prefix}: {several if found else none}")
    (name,) = found
    draws = len(sources.store.stored_draws(name)) if kinds[name] == "context" else 0
    ours = [v.patch_id for v in variants] + [d.context.context_id for v in variants for d in v.decodings]
    nearest = nearest_to(name, ours, kinds[name], sources.payloads)
    return UnknownId(kinds[name], name, sources.payloads.label(name), draws, tuple(nearest))
