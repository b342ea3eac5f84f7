"""`python -m orchestrator explain GRID.yaml [WHAT]`: why a cell or draw is complete or owed, and what resembles it.

Reads the store and computes no draw: what is owed follows the plan's rules, what failed is in the failures table and in
grades without a verdict, and similar entries are found by comparing payloads. Reads one context at a time, and only
those asked about. `as_text.py` and `as_json.py` print the result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eval.grading import grader_id
from orchestrator.explain.draw_status import (
    PROVENANCE,
    ContextRows,
    DrawStatus,
    StoreIndex,
    draw_status,
    list_store,
    read_context,
)
from orchestrator.explain.reasons import GivenUp, Reason, cell_state, given_up, reasons
from orchestrator.explain.selection import SelectedContext, Selection, select_contexts
from orchestrator.explain.similar import Payloads, SimilarEntry, contexts_outside_grid, nearest_entries, similar_entries
from orchestrator.grid.errors import InputError
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.store.store import Store


@dataclass(frozen=True)
class CellStatus:
    """One variant at one token limit, over all benchmarks or over the selected draws."""

    selected: SelectedContext
    limit: int
    state: str
    """complete, owed or failed."""
    draws: int
    complete: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Provenance:
    """What the store has of one context, and who made it."""

    path: str
    parts: int
    draws: int
    first: float
    last: float
    """When the first and the last row were committed, in seconds since the epoch."""
    workers: tuple[str, ...]
    engines: tuple[str, ...]
    """Engine settings that can shift numerics, as canonical JSON; several if engines were mixed."""
    weights: tuple[str, ...]
    """Digests that the engines proved for their weights; more than one means that something is wrong."""


@dataclass(frozen=True)
class DrawReport:
    """One draw: its status at each limit, and its rows."""

    name: str
    """CONTEXT/PROMPT/SEED."""
    statuses: tuple[DrawStatus, ...]
    rows: tuple[Mapping[str, Any], ...]
    failures: tuple[Mapping[str, Any], ...]
    """Every time it was given up, oldest first, even if it was completed since."""


@dataclass(frozen=True)
class ContextReport:
    """One context in detail."""

    selected: SelectedContext
    patch_stored: bool
    provenance: Provenance | None
    """None if nothing of it is stored."""
    cells: tuple[CellStatus, ...]
    similar: tuple[SimilarEntry, ...]
    draw: DrawReport | None
    """Only if a single draw was selected."""


@dataclass(frozen=True)
class UnknownId:
    """A stored patch or context that the grid does not contain, and the grid's entries nearest to it."""

    kind: str
    """patch or context."""
    name: str
    """Its id."""
    label: str
    """The variant, where the payload tells it."""
    draws: int
    nearest: tuple[SimilarEntry, ...]


@dataclass(frozen=True)
class Explanation:
    """What `explain` found. `contexts` and `unknown_id` are filled only if WHAT was given."""

    grid: str
    store: str
    what: str | None
    grader: str
    cells: tuple[CellStatus, ...]
    contexts: tuple[ContextReport, ...]
    failures: tuple[GivenUp, ...]
    contexts_outside_grid: int
    """How many contexts with draws the grid does not contain."""
    unknown_id: UnknownId | None = None


@dataclass(frozen=True)
class _Sources:
    """Where the facts come from."""

    store: Store
    resolved: ResolvedGrid
    index: StoreIndex
    payloads: Payloads


def explain(store: Store, resolved: ResolvedGrid, what: str | None, selection: Selection) -> Explanation:
    """Explain `what`, or every cell briefly if it is None. Raises InputError for an unknown name."""
    selected = select_contexts(resolved, what, selection)
    grader = grader_id(resolved.grid.runtime.grader)
    sources = _Sources(store, resolved, list_store(store), Payloads(store, resolved))
    if not selected:
        assert what is not None, "a grid has cells"
        unknown_id = _unknown_id(sources, what.split("/")[0])
        return Explanation(resolved.grid.name, store.uri, what, grader, (), (), (), 0, unknown_id)
    cells: list[CellStatus] = []
    reports: list[ContextReport] = []
    failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]] = {}
    for one in selected:
        columns = PROVENANCE if what is not None else ()
        stored = read_context(store, one.decoding.context, grader, sources.index, columns)
        statuses = _cells(stored, one, failures)
        cells += statuses
        if what is not None:
            reports.append(_context_report(sources, stored, one, statuses))
    return Explanation(
        resolved.grid.name,
        store.uri,
        what,
        grader,
        tuple(cells),
        tuple(reports),
        given_up(failures.values()),
        len(contexts_outside_grid(sources.index, resolved)),
    )


def _cells(
    stored: ContextRows, selected: SelectedContext, failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]]
) -> tuple[CellStatus, ...]:
    first, *others = selected.limits
    if not stored.rows and not stored.given_up:  # as in most of a large grid at first: all limits have the same status
        status = _cell(stored, selected, first, failures)
        return (status, *(replace(status, limit=limit) for limit in others))
    return tuple(_cell(stored, selected, limit, failures) for limit in selected.limits)


def _cell(
    stored: ContextRows,
    selected: SelectedContext,
    limit: int,
    failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]],
) -> CellStatus:
    """One cell's status. Adds the failures that it meets to `failures`, each draw once."""
    statuses = [draw_status(stored, question, seed, limit) for question, seed in selected.draws]
    for status in statuses:
        if status.failure is not None:
            key = (status.failure["context_id"], status.failure["prompt_id"], status.failure["seed"])
            failures[key] = (selected.label, status.failure)
    why = reasons(statuses, stored.grader)
    complete = len(statuses) - sum(reason.draws for reason in why)
    return CellStatus(selected, limit, cell_state(statuses), len(statuses), complete, why)


def _context_report(
    sources: _Sources, stored: ContextRows, selected: SelectedContext, cells: tuple[CellStatus, ...]
) -> ContextReport:
    context = selected.decoding.context
    others = {row["answer_context_id"] for row in stored.rows} - {context.answer_context_id}
    draw = _draw_report(sources.store, stored, selected) if len(selected.draws) == 1 else None
    provenance = _provenance(sources.store, context.context_id, stored.rows if draw is None else draw.rows)
    similar = similar_entries(sources.index, sources.resolved, context, sorted(others), sources.payloads)
    return ContextReport(selected, stored.patch_stored, provenance, cells, similar, draw)


def _provenance(store: Store, context_id: str, rows: Iterable[Mapping[str, Any]]) -> Provenance | None:
    if not (rows := list(rows)):
        return None
    times = [row["created_at"] for row in rows]
    return Provenance(
        f"{store.uri}/draws/{context_id}",
        len(store.parts("draws", context_id, ["seed"])),
        len({(row["prompt_id"], row["seed"]) for row in rows}),
        min(times),
        max(times),
        *(tuple(sorted({row[column] for row in rows})) for column in ("worker", "engine", "weights_digest")),
    )


def _draw_report(store: Store, stored: ContextRows, selected: SelectedContext) -> DrawReport:
    ((question, seed),) = selected.draws
    context, prompt = stored.context.context_id, question.gold.prompt_id
    failures = store.read("failures", context).to_pylist()
    return DrawReport(
        f"{context}/{prompt}/{seed}",
        tuple(draw_status(stored, question, seed, limit) for limit in selected.limits),
        _rows_of(stored.rows, prompt, seed, "start"),
        _rows_of(failures, prompt, seed, "created_at"),
    )


def _rows_of(rows: Iterable[Mapping[str, Any]], prompt: str, seed: int, order: str) -> tuple[Mapping[str, Any], ...]:
    mine = [row for row in rows if (row["prompt_id"], row["seed"]) == (prompt, seed)]
    return tuple(sorted(mine, key=lambda row: (row[order], row["created_at"])))


def _unknown_id(sources: _Sources, prefix: str) -> UnknownId:
    index, variants = sources.index, sources.resolved.variants
    kinds = dict.fromkeys(index.patches, "patch") | dict.fromkeys(index.contexts["draws"], "context")
    found = sorted(name for name in kinds if name.startswith(prefix))
    if len(found) != 1:
        several = f"{len(found)} ids in the store begin like this: {', '.join(found)}; give more digits"
        none = "neither the grid nor the store has a patch or context with this id; `plan --json` lists the grid's"
        raise InputError(f"{prefix}: {several if found else none}")
    (name,) = found
    draws = len(sources.store.stored_draws(name)) if kinds[name] == "context" else 0
    ours = [v.patch_id for v in variants] + [d.context.context_id for v in variants for d in v.decodings]
    nearest = nearest_entries(name, ours, kinds[name], sources.payloads)
    return UnknownId(kinds[name], name, sources.payloads.label(name), draws, tuple(nearest))
