"""Compaction: many small parts of a context become one, and no reader can tell.

The compacted part is published, read back and compared, and only then are the parts it replaces removed. A compactor
that dies in between leaves sources that are stored twice: readers take each source once, and the next compaction
removes the rest. A part that cannot be read whole, or is committed meanwhile, is not touched. Two compactors at once do
no harm: a compacted part is named by its sources. Temporary files that killed writers left are removed too, a day later
at the earliest.
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
    """Compact the parts of one context. Returns how many files fewer there are.

    Holds all rows of the context in memory. Raises StoreUnavailable; nothing is lost then.
    """
    parts = store.parts(table, context_id)
    if len(parts) < 2:
        return 0
    sources = distinct(parts)
    target = f"{table}/{context_id}/{compacted_name(sources)}"
    if all(part.file.path != target for part in parts):
        rows = pa.concat_tables(sources.values()).cast(TABLES[table])
        store.files.publish(target, encode(rows, {name: one.num_rows for name, one in sources.items()}))
        _check_readable(store, target, rows)
    replaced = [part.file.path for part in parts if part.file.path != target]
    for path in replaced:
        store.files.remove(path)
    return len(parts) - 1


def compact_finished(store: Store, context_ids: Iterable[str]) -> int:
    """Compact the draws, grades and failures of complete contexts. Returns how many files fewer there are.

    Call it at the end of a sweep. It is safe while these contexts are written to, but new parts soon undo its work.
    """
    fewer = 0
    for context_id in context_ids:
        for table in TABLES:
            fewer += compact(store, table, context_id)
            store.files.remove_abandoned(f"{table}/{context_id}")
    store.files.remove_abandoned("patches")
    return fewer


def compacted_name(sources: Iterable[str]) -> str:
    """The name of the compacted part of these sources. It sorts after every worker's part (see Files.listing)."""
    return f"whole-{name_of({'version': 1, 'sources': sorted(sources)})}.parquet"


def _check_readable(store: Store, target: str, rows: pa.Table) -> None:
    content = store.files.read(target)
    if content is None or not pq.read_table(pa.BufferReader(content)).equals(rows):
        raise StoreError(
            f"store {store.uri}: {target} does not read back as it was written, so the parts it replaces are kept; "
            "check the disk or the service behind the store"
        )
