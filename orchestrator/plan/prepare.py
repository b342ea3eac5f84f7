"""What both commands that run an engine do first: resolve the grid, prove the store writable, plan."""

from orchestrator.grid.parse import Grid
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.resolve import Survey, survey
from orchestrator.plan.stored import read_holdings
from orchestrator.store.store import Store


def prepare(grid: Grid, store: Store) -> tuple[Survey, Plan]:
    """Everything that can be found out before anything is started, and a store that is proved to be writable."""
    surveyed = survey(grid)
    store.check_writable()
    plan = make_plan(surveyed, read_holdings(store, surveyed))
    for name, payload in surveyed.payloads.items():
        store.put_payload(name, payload)
    return surveyed, plan
