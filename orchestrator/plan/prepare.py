"""What both commands that run an engine do first: resolve the grid, prove the store writable, plan."""

from orchestrator.grid.parse import Grid
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.resolve import ResolvedGrid, resolve_grid
from orchestrator.plan.stored import read_stored
from orchestrator.store.store import Store


def prepare(grid: Grid, store: Store) -> tuple[ResolvedGrid, Plan]:
    """Everything that can be found out before anything is started, and a store that is proved to be writable."""
    resolved = resolve_grid(grid)
    store.check_writable()
    plan = make_plan(resolved, read_stored(store, resolved))
    for name, payload in resolved.payloads.items():
        store.put_payload(name, payload)
    return resolved, plan
