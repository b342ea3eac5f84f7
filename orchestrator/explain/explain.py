"""`python -m orchestrator explain GRID.yaml [WHAT]`: why a cell or a draw is cached, owed, or not what it looks like.

Reads the store and computes nothing anew: what is owed follows the rules that the plan follows, what failed is in the
failures table and in grades without a verdict, and what looks alike is told by payloads. Contexts are read one at a
time, and only those asked about. `explaining.py` words the result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eval.grading import grader_id
from orchestrator.explain.draw_status import Present, Reading, Standing, list_store, read_context, standing
from orchestrator.explain.reasons import GivenUp, Reason, given_up, reasons, state_of
from orchestrator.explain.selection import Chosen, Selection, find_chosen
from orchestrator.explain.similar import LookAlike, Payloads, look_alikes, nearest_to, strangers
from orchestrator.grid.errors import GridError
from orchestrator.plan.resolve import Survey
from orchestrator.store.store import Store


@dataclass(frozen=True)
class CellStory:
    """One variant at one token limit, over all benchmarks or over the draws asked about."""

    chosen: Chosen
    limit: int
    state: str
    """cached, owed or failed."""
    draws: int
    cached: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Held:
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
class DrawStory:
    """One draw: how it stands at each limit, and the rows that make it up."""

    name: str
    """CONTEXT/PROMPT/SEED."""
    standings: tuple[Standing, ...]
    rows: tuple[Mapping[str, Any], ...]
    failures: tuple[Mapping[str, Any], ...]
    """Every time it was given up, oldest first, also if it was made since."""


@dataclass(frozen=True)
class ContextStory:
    """One context looked at closely."""

    chosen: Chosen
    patch_held: bool
    held: Held | None
    cells: tuple[CellStory, ...]
    look_alikes: tuple[LookAlike, ...]
    draw: DrawStory | None


@dataclass(frozen=True)
class Foreign:
    """A patch or context that is in the store and is no part of the grid, and what of the grid is nearest to it."""

    kind: str
    name: str
    label: str
    draws: int
    nearest: tuple[LookAlike, ...]


@dataclass(frozen=True)
class Explanation:
    """The answer. `contexts` and `foreign` only where something was asked about by name."""

    grid: str
    store: str
    what: str | None
    grader: str
    cells: tuple[CellStory, ...]
    contexts: tuple[ContextStory, ...]
    failures: tuple[GivenUp, ...]
    strangers: int
    """How many contexts hold draws and are no part of the grid."""
    foreign: Foreign | None = None


@dataclass(frozen=True)
class _Sources:
    """Where answers come from."""

    store: Store
    survey: Survey
    present: Present
    payloads: Payloads


def explain(store: Store, survey: Survey, what: str | None, selection: Selection) -> Explanation:
    """Explain `what`, or every cell in one line if it is None. Raises GridError for a name that there is not."""
    chosen = find_chosen(survey, what, selection)
    grader = grader_id(survey.grid.runtime.grader)
    sources = _Sources(store, survey, list_store(store), Payloads(store, survey))
    if not chosen:
        assert what is not None, "a grid has cells"
        foreign = _foreign(sources, what.split("/")[0])
        return Explanation(survey.grid.name, store.uri, what, grader, (), (), (), 0, foreign)
    cells: list[CellStory] = []
    stories: list[ContextStory] = []
    failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]] = {}
    for one in chosen:
        reading = read_context(store, one.decoding.context, grader, sources.present, closely=what is not None)
        told = _cells(reading, one, failures)
        cells += told
        if what is not None:
            stories.append(_context(sources, reading, one, told))
    return Explanation(
        survey.grid.name,
        store.uri,
        what,
        grader,
        tuple(cells),
        tuple(stories),
        given_up(failures.values()),
        len(strangers(sources.present, survey)),
    )


def _cells(
    reading: Reading, chosen: Chosen, failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]]
) -> tuple[CellStory, ...]:
    first, *others = chosen.limits
    if not reading.rows and not reading.given_up:  # most of a large grid, at first: every limit stands alike
        story = _cell(reading, chosen, first, failures)
        return (story, *(replace(story, limit=limit) for limit in others))
    return tuple(_cell(reading, chosen, limit, failures) for limit in chosen.limits)


def _cell(
    reading: Reading,
    chosen: Chosen,
    limit: int,
    failures: dict[tuple[str, str, int], tuple[str, Mapping[str, Any]]],
) -> CellStory:
    """One cell's story; the failures met on the way are added to `failures`, each draw once."""
    found = [standing(reading, question, seed, limit) for question, seed in chosen.draws]
    for one in found:
        if one.failure is not None:
            key = (one.failure["context_id"], one.failure["prompt_id"], one.failure["seed"])
            failures[key] = (chosen.label, one.failure)
    why = reasons(found, reading.grader)
    cached = len(found) - sum(reason.draws for reason in why)
    return CellStory(chosen, limit, state_of(found), len(found), cached, why)


def _context(sources: _Sources, reading: Reading, chosen: Chosen, cells: tuple[CellStory, ...]) -> ContextStory:
    context = chosen.decoding.context
    others = {row["answer_context_id"] for row in reading.rows} - {context.answer_context_id}
    draw = _draw(sources.store, reading, chosen) if len(chosen.draws) == 1 else None
    held = _held(sources.store, context.context_id, reading.rows if draw is None else draw.rows)
    alike = look_alikes(sources.present, sources.survey, context, sorted(others), sources.payloads)
    return ContextStory(chosen, reading.patch_held, held, cells, alike, draw)


def _held(store: Store, context_id: str, rows: Iterable[Mapping[str, Any]]) -> Held | None:
    if not (rows := list(rows)):
        return None
    moments = [row["created_at"] for row in rows]
    return Held(
        f"{store.uri}/draws/{context_id}",
        len(store.parts("draws", context_id, ["seed"])),
        len({(row["prompt_id"], row["seed"]) for row in rows}),
        min(moments),
        max(moments),
        *(tuple(sorted({row[column] for row in rows})) for column in ("worker", "engine", "weights_digest")),
    )


def _draw(store: Store, reading: Reading, chosen: Chosen) -> DrawStory:
    ((question, seed),) = chosen.draws
    context, prompt = reading.context.context_id, question.gold.prompt_id
    failures = store.read("failures", context).to_pylist()
    return DrawStory(
        f"{context}/{prompt}/{seed}",
        tuple(standing(reading, question, seed, limit) for limit in chosen.limits),
        _rows_of(reading.rows, prompt, seed, "start"),
        _rows_of(failures, prompt, seed, "created_at"),
    )


def _rows_of(rows: Iterable[Mapping[str, Any]], prompt: str, seed: int, order: str) -> tuple[Mapping[str, Any], ...]:
    mine = [row for row in rows if (row["prompt_id"], row["seed"]) == (prompt, seed)]
    return tuple(sorted(mine, key=lambda row: (row[order], row["created_at"])))


def _foreign(sources: _Sources, prefix: str) -> Foreign:
    present, variants = sources.present, sources.survey.variants
    kinds = dict.fromkeys(present.patches, "patch") | dict.fromkeys(present.contexts["draws"], "context")
    found = sorted(name for name in kinds if name.startswith(prefix))
    if len(found) != 1:
        several = f"{len(found)} ids of the store begin so: {', '.join(found)}; give more digits"
        none = (
            "neither the grid nor the store has a patch or context whose id begins so; `plan --json` lists the grid's"
        )
        raise GridError(f"{prefix}: {several if found else none}")
    (name,) = found
    draws = len(sources.store.held_keys(name)) if kinds[name] == "context" else 0
    ours = [v.patch_id for v in variants] + [d.context.context_id for v in variants for d in v.decodings]
    nearest = nearest_to(name, ours, kinds[name], sources.payloads)
    return Foreign(kinds[name], name, sources.payloads.label(name), draws, tuple(nearest))
