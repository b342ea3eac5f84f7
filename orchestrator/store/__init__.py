"""The store: what it offers to readers of its data (docs/store.md) and to the rest of the orchestrator."""

from orchestrator.store.compaction import compact_finished
from orchestrator.store.store import Store, StoreError, StoreUnavailable, load_draws

__all__ = ["Store", "StoreError", "StoreUnavailable", "compact_finished", "load_draws"]
