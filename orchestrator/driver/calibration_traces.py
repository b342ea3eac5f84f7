"""Draws the traces that variants are calibrated on, and keeps them in the store."""

from collections.abc import Callable, Iterable

from orchestrator.console import say
from orchestrator.plan.own_traces import first_traces, more_seeds, with_seeds
from orchestrator.plan.plan import Plan
from orchestrator.plan.prepare import prepare
from orchestrator.plan.resolved_grid import TraceRequest
from orchestrator.results.export import traces
from orchestrator.store.store import Store


def make_traces(requests: Iterable[TraceRequest], store: Store, drive: Callable[[Plan], str]) -> str:
    """Make what the store lacks of `requests`. `drive` computes what a plan owes, and returns why it ended.

    Returns "done", or why `drive` was stopped. Traces that cannot be made are told, and keep nothing else from being
    done: the variants that need them go on waiting.
    """
    for request in requests:
        if store.traces_digest(request.name) is None and (reason := _make(request, store, drive)) != "done":
            return reason
    return "done"


def _make(request: TraceRequest, store: Store, drive: Callable[[Plan], str]) -> str:
    seeds = 1
    while True:
        resolved, plan = prepare(with_seeds(request, seeds), store)
        if plan.draws_owed:
            say(f"{request.grid.name}: {plan.draws_owed} traces are drawn first, to calibrate on")
            if (reason := drive(plan)) != "done":
                return reason
        resolved, plan = prepare(with_seeds(request, seeds), store)
        if plan.draws_owed:
            say(f"{request.grid.name}: {plan.draws_owed} of {request.what} could not be drawn; a later run tries again")
            return "done"
        rows = traces(store, resolved, resolved.variants[0])
        content, tokens = first_traces(rows, resolved.grid.sampling.seeds, request.tokens)
        if tokens >= request.tokens:
            store.publish_traces(request.name, content)
            say(f"{request.grid.name}: {tokens:,} tokens of {request.what} are kept to calibrate on")
            return "done"
        try:
            seeds = more_seeds(request, seeds, tokens)
        except ValueError as error:
            say(f"{request.grid.name}: {error}")
            return "done"
