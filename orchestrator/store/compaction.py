"""Compaction: many small parts of a context become one, and no reader can tell.

The one is published first, read back, compared, and only then are the parts that it stands for removed. Whatever dies
in between leaves files whose sources another file holds, too: readers take each source once, and the next compaction
removes them. A part that cannot be read whole is not touched. Parts that are committed meanwhile are not touched.
Two compactors at once do no harm: a compacted part is named by its sources. What killed writers have left under
temporary names is removed along with it, a day later at the earliest.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.identity import name_of
from orchestrator.store.parts import distinct, encode
from orchestrator.store.store import Store
from orchestrator.store.tables import TABLES
from workers.store import StoreError


def compact(store: Store, table: str, context_id: str) -> int:
    """Put the parts of one context into one. Returns how many files are fewer.

    All of the context's rows are in memory for a moment. Raises StoreUnavailable; nothing is lost then.
    """
    parts = store.parts(table, context_id)
    if len(parts) < 2:
        return 0
    sources = distinct(parts)
    target = f"{table}/{context_id}/{compacted_name(sources)}"
    if all(part.found.path != target for part in parts):
        rows = pa.concat_tables(sources.values()).cast(TABLES[table])
        store.files.publish(target, encode(rows, {name: one.num_rows for name, one in sources.items()}))
        _prove(store, target, rows)
    replaced = [part.found.path for part in parts if part.found.path != target]
    for path in replaced:
        store.files.remove(path)
    return len(parts) - 1


def compact_finished(store: Store, context_ids: Iterable[str]) -> int:
    """Compact the draws, grades and failures of contexts that are complete. Returns how many files are fewer.

    Call it when nothing of these contexts is being made: at the end of a sweep. It is safe at any other time, but its
    work is soon undone by new parts.
    """
    fewer = 0
    for context_id in context_ids:
        for table in TABLES:
            fewer += compact(store, table, context_id)
            store.files.remove_left_behind(f"{table}/{context_id}")
    store.files.remove_left_behind("patches")
    return fewer


def compacted_name(sources: Iterable[str]) -> str:
    """The name of the file that holds these sources. It sorts after all that workers give (see Files.listing)."""
    return f"whole-{name_of({'version': 1, 'sources': sorted(sources)})}.parquet"


def _prove(store: Store, target: str, rows: pa.Table) -> None:
    content = store.files.read(target)
    if content is None or not pq.read_table(pa.BufferReader(content)).equals(rows):
        raise StoreError(
            f"store {store.uri}: {target} does not read back as it was written, so what it stands for is kept; check "
            "the disk or the service behind the store"
        )
