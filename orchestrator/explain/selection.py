"""What `explain` is asked about: a cell or draw named on the command line, found in a resolved grid. Pure.

A cell is named as in the table (`wanda + uniform at 0.5`, `model: wanda + uniform at 0.5`), with ` @ 1024` for one
limit, or by the first digits of its patch's or context's id; a draw by `--benchmark`, `--problem`, `--seed`, or as
`CONTEXT/PROMPT/SEED`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.spec import nearest
from orchestrator.grid.errors import InputError
from orchestrator.plan.resolved_grid import Decoding, Question, ResolvedGrid, ResolvedVariant, find_variant

ID = re.compile(r"[0-9a-f]{6,20}")
"""The first digits of an id; no label looks like this."""
DRAW = re.compile(r"([0-9a-f]{6,20})/([0-9a-f]{6,20})/(\d+)")
AT_LIMIT = re.compile(r"(.*\S)\s+@\s*(\S+)")
SHOWN_NAMES = 12
"""An error message lists at most this many names that would have been right."""


@dataclass(frozen=True)
class Selection:
    """Which draws of a cell are meant; None is all of them."""

    benchmark: str | None = None
    problem: str | None = None
    seed: int | None = None
    prompt: str | None = None
    """The first digits of a prompt id."""


@dataclass(frozen=True)
class SelectedContext:
    """One context of the grid with the limits and draws that were asked about."""

    variant: ResolvedVariant
    decoding: Decoding
    limits: tuple[int, ...]
    draws: tuple[tuple[Question, int], ...]
    """(question, seed)."""

    @property
    def label(self) -> str:
        return self.variant.full_label


def select_contexts(resolved: ResolvedGrid, what: str | None, selection: Selection) -> tuple[SelectedContext, ...]:
    """The contexts that `what` names, or all of them if it is None. Empty for an id that is not the grid's.

    Raises InputError, with the nearest name, for a variant, limit, benchmark, problem or seed that the grid lacks.
    """
    if what is None and selection.problem is not None:
        raise InputError(f"--problem {selection.problem}: names a draw of a cell; say which cell, such as 'dense'")
    if what is not None and (draw := DRAW.fullmatch(what)):
        what, seed = draw[1], int(draw[3])
        selection = Selection(selection.benchmark, selection.problem, seed, draw[2])
    variants, limits, context_prefix = _find(resolved, what)
    _check(resolved, selection, variants)
    selected = []
    for variant in variants:
        draws = tuple(_draws(resolved, variant, selection))
        for decoding in variant.decodings:
            served = tuple(limit for limit in decoding.limits if limit in limits)
            if served and decoding.context.context_id.startswith(context_prefix):
                selected.append(SelectedContext(variant, decoding, served, draws))
    return tuple(selected)


def _find(resolved: ResolvedGrid, what: str | None) -> tuple[Sequence[ResolvedVariant], Sequence[int], str]:
    """The variants and limits that `what` names, and the prefix that the ids of their contexts must have."""
    limits = resolved.grid.token_limits
    if what is None:
        return resolved.variants, limits, ""
    if ID.fullmatch(what):
        by_patch = {v.patch_id: v for v in resolved.variants if v.patch_id.startswith(what)}
        if by_patch:
            return list(by_patch.values()), limits, ""
        by_context = [v for v in resolved.variants if any(d.context.context_id.startswith(what) for d in v.decodings)]
        return by_context, limits, what
    name = what
    if (at := AT_LIMIT.fullmatch(what)) is not None:
        name, limits = at[1], (_limit(resolved, at[2]),)
    return [find_variant(resolved, name, "WHAT")], limits, ""


def _limit(resolved: ResolvedGrid, text: str) -> int:
    limits = resolved.grid.token_limits
    if text.isdecimal() and int(text) in limits:
        return int(text)
    close = f"; the nearest is {min(limits, key=lambda one: abs(one - int(text)))}" if text.isdecimal() else ""
    raise InputError(
        f"@ {text}: {resolved.grid.source.name} has no such token limit{close}. "
        f"Its limits are {', '.join(map(str, limits))}"
    )


def _check(resolved: ResolvedGrid, selection: Selection, variants: Sequence[ResolvedVariant]) -> None:
    source = resolved.grid.source.name
    names = [benchmark.name for benchmark in resolved.benchmarks]
    if selection.benchmark is not None and selection.benchmark not in names:
        raise _unknown("benchmark", selection.benchmark, source, names)
    if selection.seed is not None and selection.seed not in resolved.grid.sampling.seeds:
        raise _unknown("seed", str(selection.seed), source, [str(seed) for seed in resolved.grid.sampling.seeds])
    if selection.problem is not None:
        problems = [
            problem.id
            for benchmark in resolved.benchmarks
            if selection.benchmark in (None, benchmark.name)
            for problem in benchmark.problems
        ]
        if selection.problem not in problems:
            raise _unknown("problem", selection.problem, selection.benchmark or source, list(dict.fromkeys(problems)))
    prompts = {question.gold.prompt_id for variant in variants for question in variant.questions}
    if selection.prompt is not None and variants and not any(p.startswith(selection.prompt) for p in prompts):
        raise InputError(f"prompt {selection.prompt}: no problem of {source} has this prompt; name it with --problem")


def _unknown(what: str, given: str, source: str, known: list[str]) -> InputError:
    shown = f"{', '.join(known[:SHOWN_NAMES])}{', ...' if len(known) > SHOWN_NAMES else ''}"
    return InputError(f"--{what} {given}: {source} has no such {what}.{nearest(given, known)} Its {what}s are {shown}")


def _draws(resolved: ResolvedGrid, variant: ResolvedVariant, selection: Selection) -> Iterator[tuple[Question, int]]:
    for question in variant.questions:
        if (
            selection.benchmark in (None, question.benchmark)
            and selection.problem in (None, question.problem_id)
            and question.gold.prompt_id.startswith(selection.prompt or "")
        ):
            for seed in resolved.grid.sampling.seeds:
                if selection.seed in (None, seed):
                    yield question, seed
