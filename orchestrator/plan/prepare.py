"""The first steps of every command that runs an engine: resolve the grid, check the store, make the plan."""

from orchestrator.grid.parse import Grid
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.plan.stored import read_stored
from orchestrator.store.store import Store


def prepare(grid: Grid, store: Store) -> tuple[ResolvedGrid, Plan]:
    """Resolve and plan `grid`, check that `store` can be written, and put the ids' payloads into it.

    Raises InputError or StoreError, so that every error that can be found early comes before anything is started.
    """
    resolved = resolve_grid(grid, store.traces_digest)
    store.check_writable()
    plan = make_plan(resolved, read_stored(store, resolved))
    for payload_id, payload in resolved.payloads.items():
        store.put_payload(payload_id, payload)
    return resolved, plan
