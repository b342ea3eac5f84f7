"""`python -m orchestrator export GRID.yaml --output traces.jsonl`: a variant's own traces as calibration data.

One JSON object per line: `token_ids` (the prompt, the trace, and the answer where the thinking ended by itself),
`benchmark`, `problem_id`, `seed`; `pruning/model/calibration.py` reads them. Only what the model wrote of its own
accord is exported: an answer that a limit forced follows text of ours, and is left out. A prompt that two benchmarks
share is written once.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.budget import start
from eval.draws import DrawJob, PriorTrace
from eval.prompts import ChatTokenizer
from eval.rules import Rules, make_rules
from eval.spec import nearest
from orchestrator.grid.errors import InputError
from orchestrator.plan.resolve import Question, ResolvedGrid, ResolvedVariant
from orchestrator.store.store import Store, StoreError
from workers.draw_rows import COLUMNS, JoinedDraw, join_rows


def write_traces(store: Store, resolved: ResolvedGrid, variant: str, limit: int | None, output: Path) -> int:
    """Write the traces of the variant called `variant`, cut to `limit` thinking tokens, and say how many they were.

    The file appears whole or not at all. Raises InputError for a variant that the grid does not name, or names twice,
    and for a limit or an output that cannot be; StoreError if the store holds no trace of it.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: a limit counts thinking tokens; give at least 1, or leave it out")
    chosen = choose_variant(resolved, variant)
    lines = [json.dumps(row) + "\n" for row in traces(store, resolved, chosen, limit)]
    if not lines:
        raise StoreError(
            f"store {store.uri} holds no traces of {_full_name(chosen)!r} of {resolved.grid.source.name}; run "
            f"`python -m orchestrator.sweep {resolved.grid.source.name}` first, or name another --store"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
            whole = Path(scratch, output.name)
            whole.write_text("".join(lines), encoding="utf-8")
            os.replace(whole, output)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error}); give a file in a folder that can") from error
    return len(lines)


def choose_variant(resolved: ResolvedGrid, name: str) -> ResolvedVariant:
    """The variant whose label, or `model: label`, is `name`. Raises InputError if that is none or several."""
    found = [v for v in resolved.variants if name in (v.label, _full_name(v))]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(repr(_full_name(variant)) for variant in found)
        raise InputError(
            f"--variant {name!r}: several models have it, and their token ids do not mix; name one of {names}"
        )
    labels = [variant.label for variant in resolved.variants]
    raise InputError(
        f"--variant {name!r}: {resolved.grid.source.name} has no such variant.{nearest(name, labels)} "
        f"Its variants are {', '.join(dict.fromkeys(labels))}"
    )


def traces(
    store: Store, resolved: ResolvedGrid, variant: ResolvedVariant, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of the export, in the grid's order of problems and seeds."""
    # With limits decoded apart, the traces of the largest limit reach furthest.
    decoding = max(variant.decodings, key=lambda one: max(one.limits))
    context = decoding.context
    tokenizer = ChatTokenizer.load(Path(variant.model_path))
    rules = make_rules(context.budget, tokenizer, tokenizer.eos_ids, context.context_length, context.format)
    rows = store.read("draws", context.context_id, COLUMNS).to_pylist()
    draws = join_rows(rows, context.answer_context_id)
    questions: dict[str, Question] = {}
    for question in variant.questions:
        questions.setdefault(question.gold.prompt_id, question)
    for prompt_id, question in questions.items():
        for seed in resolved.grid.sampling.seeds:
            if (draw := draws.get((prompt_id, seed))) is not None:
                token_ids = _own_tokens(rules, question, seed, draw, limit or len(draw.trace.token_ids))
                yield {
                    "token_ids": list(token_ids),
                    "benchmark": question.benchmark,
                    "problem_id": question.problem_id,
                    "seed": seed,
                }


def _own_tokens(rules: Rules, question: Question, seed: int, draw: JoinedDraw, limit: int) -> tuple[int, ...]:
    trace = draw.trace.token_ids
    answer: Mapping[str, Any] | None = draw.answers.get(len(trace))
    if answer is not None and not answer["forced"] and len(trace) <= limit:
        prior = PriorTrace(trace, draw.trace.ended, draw.trace.limit, draw.trace.waits)
        job = DrawJob(question.problem_id, question.prompt_ids, seed, (len(trace),), prior)
        # The ask tells what the model read before its answer: s1's budget puts text of its own in the end tag's place.
        if asks := start(rules, job).asks:
            return asks[0].prompt_ids + tuple(answer["token_ids"])
    opening = rules.tags.opening if rules.tags is not None and rules.budget.mode != "none" else ()
    return question.prompt_ids + opening + trace[:limit]


def _full_name(variant: ResolvedVariant) -> str:
    return variant.full_label
