"""`python -m orchestrator export GRID.yaml --output traces.jsonl`: a variant's own traces as calibration data.

One JSON object per line: `token_ids` (the prompt, the trace, and the answer where the thinking ended by itself),
`benchmark`, `problem_id`, `seed`; `pruning/model/calibration.py` reads them. Only what the model wrote by itself is
exported; a forced answer is left out, since it continues text that the model did not write. A prompt that two
benchmarks share is written once.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.budget import start
from eval.draws import DrawJob, PriorTrace
from eval.modes import make_rules
from eval.prompts import ChatTokenizer
from eval.rules import Rules, thinking_prompt
from orchestrator.grid.errors import InputError
from orchestrator.plan.resolved_grid import Question, ResolvedGrid, ResolvedVariant, find_variant
from orchestrator.store.store import Store, StoreError
from workers.rows.draw_rows import COLUMNS, JoinedDraw, join_rows


def write_traces(store: Store, resolved: ResolvedGrid, variant: str, limit: int | None, output: Path) -> int:
    """Write the traces of the variant called `variant`, cut to `limit` thinking tokens. Returns their number.

    The file appears whole or not at all. Raises InputError for an unknown or ambiguous variant, a limit below 1, or an
    output that cannot be written; StoreError if the store has no trace of the variant.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: a limit counts thinking tokens; give at least 1, or leave it out")
    exported = find_variant(resolved, variant, "--variant")
    lines = [json.dumps(row) + "\n" for row in traces(store, resolved, exported, limit)]
    if not lines:
        raise StoreError(
            f"store {store.uri} has no traces of {exported.full_label!r} of {resolved.grid.source.name}; run "
            f"`python -m orchestrator.sweep {resolved.grid.source.name}` first, or name another --store"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
            whole = Path(scratch, output.name)
            whole.write_text("".join(lines), encoding="utf-8")
            os.replace(whole, output)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written: {error}; give a file in a folder that can") from error
    return len(lines)


def traces(
    store: Store, resolved: ResolvedGrid, variant: ResolvedVariant, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """The exported rows, in the grid's order of problems and seeds."""
    # With independent limits, the largest limit has the longest traces.
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
    """Prompt, trace and, where the thinking ended by itself within `limit`, answer."""
    trace = draw.trace.token_ids
    answer: Mapping[str, Any] | None = draw.answers.get(len(trace))
    if answer is not None and not answer["forced"] and len(trace) <= limit:
        prior = PriorTrace(trace, draw.trace.ended, draw.trace.limit, draw.trace.waits)
        job = DrawJob(question.problem_id, question.prompt_ids, seed, (len(trace),), prior)
        # The ask has what the model read before its answer: s1's budget replaces the end tag by a text of its own.
        if asks := start(rules, job).asks:
            return asks[0].prompt_ids + tuple(answer["token_ids"])
    return thinking_prompt(rules, question.prompt_ids) + trace[:limit]
