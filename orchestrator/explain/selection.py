"""What `explain` is asked about: a name from the command line, found among a survey's cells and draws. Pure.

A cell is named as the table names it (`wanda + uniform at 0.5`, `model: wanda + uniform at 0.5`), with ` @ 1024` for
one limit, or by the beginning of its patch's or context's id; a draw by `--benchmark`, `--problem`, `--seed`,
or as `CONTEXT/PROMPT/SEED`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eval.spec import nearest
from orchestrator.explain.payload_diff import differences
from orchestrator.grid.errors import InputError
from orchestrator.plan.resolved_grid import Decoding, Question, ResolvedGrid, ResolvedVariant

ID = re.compile(r"[0-9a-f]{6,20}")
DRAW = re.compile(r"([0-9a-f]{6,20})/([0-9a-f]{6,20})/(\d+)")
AT_LIMIT = re.compile(r"(.*\S)\s+@\s*(\S+)")


@dataclass(frozen=True)
class Selection:
    """Which draws of a cell are meant; None is all."""

    benchmark: str | None = None
    problem: str | None = None
    seed: int | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class SelectedContext:
    """One context of the survey, the limits asked about, and the draws."""

    variant: ResolvedVariant
    decoding: Decoding
    limits: tuple[int, ...]
    draws: tuple[tuple[Question, int], ...]

    @property
    def label(self) -> str:
        return self.variant.full_label


def find_chosen(resolved: ResolvedGrid, what: str | None, selection: Selection) -> tuple[SelectedContext, ...]:
    """The contexts that `what` names, all of them if it is None; empty for an id that is not the grid's.

    Raises InputError, with the nearest name, for a cell, limit, benchmark, problem or seed that the grid has not.
    """
    if what is None and selection.problem is not None:
        raise InputError(f"--problem {selection.problem}: names a draw of a cell; say which cell, such as 'dense'")
    if what is not None and (draw := DRAW.fullmatch(what)):
        what, seed = draw[1], int(draw[3])
        selection = Selection(selection.benchmark, selection.problem, seed, draw[2])
    variants, limits, context = _find(resolved, what)
    _check(resolved, selection, variants)
    chosen = []
    for variant in variants:
        draws = tuple(_draws(resolved, variant, selection))
        for decoding in variant.decodings:
            wanted = tuple(limit for limit in decoding.limits if limit in limits)
            if wanted and decoding.context.context_id.startswith(context):
                chosen.append(SelectedContext(variant, decoding, wanted, draws))
    return tuple(chosen)


def is_id(what: str) -> bool:
    """Whether `what` can be the beginning of an id, and cannot be a label."""
    return ID.fullmatch(what) is not None


def _find(resolved: ResolvedGrid, what: str | None) -> tuple[Sequence[ResolvedVariant], Sequence[int], str]:
    """The variants meant, the limits meant, and how the contexts' ids must begin."""
    limits = resolved.grid.token_limits
    if what is None:
        return resolved.variants, limits, ""
    if is_id(what):
        by_patch = _distinct(variant for variant in resolved.variants if variant.patch_id.startswith(what))
        if by_patch:
            return by_patch, limits, ""
        return [v for v in resolved.variants if any(_is(d, what) for d in v.decodings)], limits, what
    name = what
    if (at := AT_LIMIT.fullmatch(what)) is not None:
        name, limits = at[1], (_limit(resolved, at[2]),)
    return [_variant(resolved, name)], limits, ""


def _is(decoding: Decoding, prefix: str) -> bool:
    return decoding.context.context_id.startswith(prefix)


def _limit(resolved: ResolvedGrid, text: str) -> int:
    limits = resolved.grid.token_limits
    if text.isdecimal() and int(text) in limits:
        return int(text)
    close = f"; the nearest is {min(limits, key=lambda one: abs(one - int(text)))}" if text.isdecimal() else ""
    raise InputError(
        f"@ {text}: {resolved.grid.source.name} has no such token limit{close}. "
        f"Its limits are {', '.join(map(str, limits))}"
    )


def _variant(resolved: ResolvedGrid, name: str) -> ResolvedVariant:
    found = _distinct(v for v in resolved.variants if name in (v.label, v.full_label))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{name!r}: {_which(resolved, found)}")
    labels = list(dict.fromkeys(variant.label for variant in resolved.variants))
    full = [variant.full_label for variant in resolved.variants]
    known = full if ": " in name else labels
    raise InputError(
        f"{name!r}: {resolved.grid.source.name} has no such cell.{nearest(name, known)} Its variants are "
        f"{', '.join(labels[:12])}{', ...' if len(labels) > 12 else ''}; add `@ LIMIT` for one token limit"
    )


def _distinct(variants: Iterable[ResolvedVariant]) -> list[ResolvedVariant]:
    """Two paths to one content (a calibration file and its copy, say) are one variant."""
    return list({variant.patch_id: variant for variant in variants}.values())


def _which(resolved: ResolvedGrid, found: Sequence[ResolvedVariant]) -> str:
    """Several variants of one name, each with what tells it from the first."""
    if len({variant.model_label for variant in found}) == len(found):
        return f"several models have it; name one of {', '.join(v.full_label for v in found)}"
    first = found[0]
    lines = [f"{len(found)} variants have this name; give the patch id of one: {first.patch_id}"]
    for other in found[1:]:
        apart = differences(other.patch_payload, first.patch_payload, resolved.payloads.get)
        lines.append(f"{other.patch_id} ({'; '.join(one.words for one in apart)})")
    return ", ".join(lines)


def _check(resolved: ResolvedGrid, selection: Selection, variants: Sequence[ResolvedVariant]) -> None:
    source = resolved.grid.source.name
    names = [benchmark.name for benchmark in resolved.benchmarks]
    if selection.benchmark is not None and selection.benchmark not in names:
        raise _unknown("--benchmark", selection.benchmark, source, names)
    if selection.seed is not None and selection.seed not in resolved.grid.sampling.seeds:
        raise _unknown("--seed", str(selection.seed), source, [str(seed) for seed in resolved.grid.sampling.seeds])
    if selection.problem is not None:
        homes = {
            problem.id: benchmark.name
            for benchmark in resolved.benchmarks
            if selection.benchmark in (None, benchmark.name)
            for problem in benchmark.problems
        }
        if selection.problem not in homes:
            raise _unknown("--problem", selection.problem, selection.benchmark or source, list(homes))
    prompts = {question.gold.prompt_id for variant in variants for question in variant.questions}
    if selection.prompt is not None and variants and not any(p.startswith(selection.prompt) for p in prompts):
        raise InputError(f"prompt {selection.prompt}: no problem of {source} has this prompt; name it with --problem")


def _unknown(option: str, given: str, source: str, known: list[str]) -> InputError:
    shown = f"{', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"
    return InputError(f"{option} {given}: {source} has none such.{nearest(given, known)} There are {shown}")


def _draws(resolved: ResolvedGrid, variant: ResolvedVariant, selection: Selection) -> Iterable[tuple[Question, int]]:
    for question in variant.questions:
        if selection.benchmark not in (None, question.benchmark) or selection.problem not in (
            None,
            question.problem_id,
        ):
            continue
        if selection.prompt is not None and not question.gold.prompt_id.startswith(selection.prompt):
            continue
        for seed in resolved.grid.sampling.seeds:
            if selection.seed in (None, seed):
                yield question, seed
