"""The rules of one variant, and what follows from them: where thinking ends, how far it may go, where an
engine must stop, which seed it gets. Pure functions; the order of events is ``eval.budget``'s.
"""

import hashlib
from dataclasses import dataclass

from eval.draws import DrawJob
from eval.formats import FORMATS, Tags, ThinkingFormat, TokenCodec, detect_format, locate, shown_format, tags
from eval.spec import BudgetSpec, check_budget

# Left for an uncapped answer when the context is nearly full, as in s1's "auto" limit.
UNCAPPED_ANSWER_ROOM = 100


@dataclass(frozen=True)
class Rules:
    """Everything that is the same for all draws of a variant. Build with ``make_rules``.

    ``style`` and ``tags`` are None in mode "none" when the model has no known format.
    """

    budget: BudgetSpec
    style: ThinkingFormat | None
    tags: Tags | None
    codec: TokenCodec
    eos_ids: frozenset[int]
    context: int


def make_rules(
    budget: BudgetSpec,
    codec: TokenCodec,
    eos_ids: frozenset[int],
    context: int,
    style: ThinkingFormat | None = None,
) -> Rules:
    """The rules of one variant. ``style`` None detects the model's own format; s1-legacy always uses s1's.

    ``context`` is the model's maximum length in tokens, prompt included. Raises ``ValueError`` naming the
    setting.
    """
    check_budget(budget)
    if budget.mode == "s1-legacy":
        style = FORMATS["s1"]
    elif style is None:
        # Without a budget a format only tells where the answer begins; a model may do without.
        style = shown_format(codec) if budget.mode == "none" else detect_format(codec)
    wait_text = budget.wait_text if budget.wait else ""
    style_tags = tags(codec, style, wait_text) if style is not None else None
    if budget.wait and style is not None and style_tags is not None and len(style_tags.end) > 1:
        # A limit inside the mark would stand on tokens that the overruling takes back: no shared trace could serve it.
        raise ValueError(
            f"budget.wait = {budget.wait}: this tokenizer spells the end mark {style.end!r} in {len(style_tags.end)} "
            "tokens, and only an end of one token can be overruled. Use a model with Qwen2.5's vocabulary, as s1's "
            "are, or drop budget.wait."
        )
    return Rules(budget, style, style_tags, codec, eos_ids, context)


def longest_trace(rules: Rules, job: DrawJob) -> int:
    """How long the trace may get: the largest limit, or what the context leaves."""
    return min(max(job.limits), room_to_think(rules, job))


def room_to_think(rules: Rules, job: DrawJob) -> int:
    """What the context leaves for a trace after prompt, forced text and answer, in tokens. Raises ``ValueError`` if
    nothing."""
    room = rules.context - len(job.prompt_ids)
    if rules.budget.mode != "none":
        assert rules.tags is not None
        forced = len(rules.tags.opening) + len(rules.tags.newline) + len(rules.tags.early_stop)
        forced = max(forced, len(rules.tags.opening) + len(rules.tags.bridge))
        room -= forced + (rules.budget.answer_tokens or UNCAPPED_ANSWER_ROOM)
    if room < 1:
        raise ValueError(
            f"problem {job.problem_id!r}: its prompt of {len(job.prompt_ids)} tokens leaves no room to "
            f"think and answer in a context of {rules.context}. Drop the problem, lower "
            "budget.answer_tokens, or use a longer context."
        )
    return room


def trace_stops(rules: Rules) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(stop token ids, stop texts) of a trace: end of sequence, and the end tag, as one token or as text."""
    eos = tuple(sorted(rules.eos_ids))
    if rules.budget.mode == "none" or rules.style is None or rules.tags is None:
        return eos, ()
    if len(rules.tags.end) == 1:
        return tuple(sorted({*eos, *rules.tags.end})), ()
    return eos, (rules.style.end,)


def natural_end(rules: Rules, trace: tuple[int, ...]) -> tuple[int, int] | None:
    """(tokens before the end mark, tokens through it) of the first natural end in ``trace``, or None.

    Told from the ids alone: an engine that reaches its length on the very token that ends the thinking may
    say "length".
    """
    ends = [(at, at + 1) for at in (first_of(trace, rules.eos_ids),) if at is not None]
    if rules.budget.mode != "none" and rules.style is not None and rules.tags is not None:
        if len(rules.tags.end) == 1:
            at = first_of(trace, frozenset(rules.tags.end))
            ends += [(at, at + 1)] if at is not None else []
        elif (found := locate(trace, rules.style.end, rules.codec)) is not None:
            ends.append(found)
    return min(ends, key=lambda end: end[1]) if ends else None


def first_of(ids: tuple[int, ...], wanted: frozenset[int]) -> int | None:
    """Index of the first of ``ids`` that is ``wanted``, or None."""
    return next((index for index, token in enumerate(ids) if token in wanted), None)


def phase_seed(rules: Rules, job: DrawJob, phase: str) -> int:
    """The request seed of a phase ("trace", "answer"): s1's harness shares one, the others derive it."""
    if rules.budget.mode == "s1-legacy":
        return job.seed  # the harness hands the grid's seed to both phases of every problem
    return derived_seed(job.seed, job.prompt_ids, phase)


def derived_seed(seed: int, prompt_ids: tuple[int, ...], phase: str) -> int:
    """A 32-bit seed of its own for every (seed, prompt, phase), so that problems are not correlated.

    It does not depend on the limit: shared and independent decoding then agree token for token under any
    sampling.
    """
    content = f"{seed}|{phase}|{','.join(map(str, prompt_ids))}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big")
