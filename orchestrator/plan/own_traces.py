"""Calibration data that the sweep makes first: the unpruned model's own traces. Pure.

A `TraceRequest` is a sweep of its own, of the dense model on other problems; its draws are in the store like any
others. They are put together once (`first_traces`), in a fixed order, and kept under the request's name, which says
what was asked for. A patch is named by what the traces turned out to be.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.grid.calibration import OwnTraces
from orchestrator.grid.format import OWN_TRACES
from orchestrator.grid.parse import Grid, Model, Variant
from orchestrator.grid.source import GridSource
from orchestrator.identity import name_of
from orchestrator.plan.resolved_grid import ResolvedGrid, TraceRequest
from pruning.allocators import ALLOCATORS
from pruning.resolve import resolve
from pruning.spec import DENSE, PruneSpec
from workers.messages import STORED_TRACES

MOST_SEEDS = 64
"""Traces of each problem, at most."""


def stored_data(name: str) -> str:
    """What a patch's spec calls the stored traces of the request `name`."""
    return STORED_TRACES + name


def traces_grid(grid: Grid, model: Model, calibration: OwnTraces, line: int, seeds: int = 1) -> Grid:
    """The sweep that draws the traces: dense on `calibration.problems`, one draw of each for so many seeds."""
    numbers = tuple(range(calibration.first_seed, calibration.first_seed + seeds))
    changed = {"models": [model.path], "token_limits": [calibration.limit], "benchmarks": [calibration.problems.name]}
    return replace(
        grid,
        source=GridSource(grid.source.name, grid.source.value | changed, {(): line}),
        name=f"{grid.name}-traces",
        variants=(Variant(model, resolve(PruneSpec(DENSE)), line),),
        token_limits=(calibration.limit,),
        benchmarks=(calibration.problems,),
        sampling=replace(grid.sampling, temperature=calibration.temperature, seeds=numbers),
        budget=replace(grid.budget, independent_limits=False),
    )


def trace_request(drawn: ResolvedGrid, calibration: OwnTraces, spec: PruneSpec, variant: str) -> TraceRequest:
    """What `spec` needs of the traces that `drawn`, a resolved `traces_grid`, draws. `variant` is a label for errors.

    An allocator that reads gradients validates on documents that it does not train on, so it gets twice the tokens.
    """
    dense = drawn.variants[0]
    context = dense.decodings[0].context
    tokens = calibration.samples * calibration.tokens
    if spec.allocator is not None and ALLOCATORS[spec.allocator].reads_gradients:
        tokens *= 2
    prompts = hashlib.sha256(",".join(question.gold.prompt_id for question in dense.distinct).encode()).hexdigest()
    payload = {
        "what": OWN_TRACES,
        "context": context.context_id,
        "answers": context.answer_context_id,
        "limit": calibration.limit,
        "prompts": prompts,
        "first_seed": calibration.first_seed,
        "tokens": tokens,
    }
    return TraceRequest(name_of(payload), drawn.grid, tokens, variant)


def with_seeds(request: TraceRequest, seeds: int) -> Grid:
    """The request's sweep with so many seeds."""
    first = request.grid.sampling.seeds[0]
    return replace(request.grid, sampling=replace(request.grid.sampling, seeds=tuple(range(first, first + seeds))))


def first_traces(rows: Iterable[Mapping[str, Any]], seeds: Sequence[int], tokens: int) -> tuple[bytes, int]:
    """(the calibration file, its tokens) of the first traces that have `tokens` tokens together; fewer if all have.

    `rows` are as `orchestrator export` writes them, in the order of problems; the file has them seed by seed.
    """
    by_seed: dict[int, list[Mapping[str, Any]]] = {seed: [] for seed in seeds}
    for row in rows:
        by_seed[row["seed"]].append(row)
    lines: list[str] = []
    count = 0
    for row in (row for seed in seeds for row in by_seed[seed]):
        if count >= tokens:
            break
        lines.append(json.dumps(row, separators=(",", ":")) + "\n")
        count += len(row["token_ids"])
    return "".join(lines).encode(), count


def more_seeds(request: TraceRequest, seeds: int, tokens: int) -> int:
    """How many seeds will do, by what `seeds` of them gave. Raises ValueError if there can be no more."""
    if request.grid.sampling.temperature == 0:
        raise ValueError(
            f"{request.what} have {tokens:,} of the {request.tokens:,} tokens that {request.variant} is calibrated on, "
            "and greedy decoding has one trace of each problem; give more problems, a temperature above 0, or fewer "
            "samples"
        )
    wanted = math.ceil(seeds * request.tokens / max(1, tokens))
    if seeds >= MOST_SEEDS:
        raise ValueError(
            f"{request.what} have {tokens:,} of the {request.tokens:,} tokens that {request.variant} is calibrated on, "
            f"with {MOST_SEEDS} traces of each problem; give more problems, or fewer samples"
        )
    return min(MOST_SEEDS, max(seeds + 1, wanted))
