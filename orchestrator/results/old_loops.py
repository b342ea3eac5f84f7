"""Loops of traces that were stored before draws had the column `loop_at`: looked for once, and kept in the store.

The parts of draws are never rewritten, so what is found is kept beside them, in the table `loops`. Where the store
cannot be written, the next reader looks again.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from eval.loops import LoopFinder
from eval.prompts import ChatTokenizer
from orchestrator.plan.resolved_grid import ResolvedVariant
from orchestrator.store.store import Store, StoreUnavailable
from workers.rows.draw_rows import COLUMNS, DrawSummary, join_rows
from workers.rows.tables import LoopRow

DrawName = tuple[str, int]
"""(prompt id, seed) within a context."""


def loops_of(
    store: Store, variant: ResolvedVariant, context_id: str, draws: Mapping[DrawName, DrawSummary]
) -> dict[DrawName, int]:
    """After how many tokens of each draw's trace a loop is established; 0 if none is."""
    loops = {name: draw.loop_at for name, draw in draws.items() if draw.loop_at is not None}
    unknown = {name: draw.length for name, draw in draws.items() if draw.loop_at is None}
    if unknown:
        kept = {
            (row["prompt_id"], row["seed"]): row["loop_at"]
            for row in store.read("loops", context_id).to_pylist()
            if unknown.get((row["prompt_id"], row["seed"])) == row["trace_tokens"]
        }
        loops |= kept | _look(store, variant, context_id, {name: unknown[name] for name in unknown.keys() - kept})
    return loops


def _look(
    store: Store, variant: ResolvedVariant, context_id: str, lengths: Mapping[DrawName, int]
) -> dict[DrawName, int]:
    """Look for loops in the traces of these draws, and keep what is found."""
    if not lengths:
        return {}
    codec = ChatTokenizer.load(Path(variant.model_path))
    finder = LoopFinder(lambda token: codec.decode((token,)))
    rows = store.read("draws", context_id, COLUMNS)
    keys = zip(rows["prompt_id"].to_pylist(), rows["seed"].to_pylist(), strict=True)
    rows = rows.filter(pa.array([key in lengths for key in keys], pa.bool_()))
    joined = join_rows(rows.to_pylist(), "")  # traces only: no answer has this context
    loops = {name: finder.find(draw.trace.token_ids) for name, draw in joined.items()}
    with suppress(StoreUnavailable):  # the results are right all the same
        store.commit_loops([LoopRow(context_id, *name, lengths[name], loop) for name, loop in loops.items()])
    return loops
