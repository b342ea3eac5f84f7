"""When a sweep will end: by what engines have generated since the first of them was ready, with an honest interval."""

import math

from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Event, Reported, Role, WorkerReady
from orchestrator.scheduler.state import Counters
from workers.messages import Heartbeat

DOUBTS = ((0.05, 2.0), (0.6, 1.5), (1.0, 1.35))
"""Up to this share of the work -> the factor by which the rate may change, either way. At the beginning engines are
still starting and others prune beside them; and a sweep's first variants may be its quickest. Of the last few draws
each may be long or short, which 3 / √draws allows for."""
ANSWERS = 1.3
"""Tokens per token of a trace, answers included, before any draw is in."""


class TimeLeft:
    """Told every event; asked for the time left."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._generated: dict[str, int] = {}
        """Engine -> tokens that it has generated, lost engines included."""

    def observe(self, core: Core, event: Event, now: float) -> None:
        """`now`: of the clock that `interval` is asked with, in seconds."""
        match event:
            case WorkerReady(name) if self._since is None:
                worker = core.state.fleet.get(name)
                if worker is not None and worker.role is Role.ENGINE:
                    self._since = now
            case Reported(name, Heartbeat(tokens=tokens)) if tokens:
                self._generated[name] = max(tokens, self._generated.get(name, 0))

    def interval(self, core: Core, now: float) -> tuple[float, float] | None:
        """(low, high) seconds until all owed draws are made; None while nothing has been generated, or nothing is left.

        Pruning that engines wait for counts as far as they have waited so far.
        """
        state, counters = core.state, core.state.counters
        committed = counters.trace_tokens + counters.answer_tokens
        generated = max(committed, sum(self._generated.values()))
        waiting = {*state.unmade, *(name for patches in state.runnable.values() for name in patches)}
        traces = sum(map(state.waiting_tokens, waiting)) + sum(state.in_flight_tokens.values())
        if self._since is None or not generated or not traces or now <= self._since:
            return None
        per_trace = committed / counters.trace_tokens if counters.trace_tokens else ANSWERS
        low, high = _traces_left(counters, traces)
        begun = generated - committed
        per_token = (now - self._since) / generated
        least, most = (max(tokens * per_trace - begun, 1.0) * per_token for tokens in (low, high))
        share = generated / (generated + high * per_trace)
        draws = max(1, counters.owed - counters.committed - counters.failed)
        doubt = max(next(factor for reached, factor in DOUBTS if share <= reached), 1 + 3 / math.sqrt(draws))
        return least / doubt, math.ceil(most * doubt)


def _traces_left(counters: Counters, expected: float) -> tuple[float, float]:
    """(low, high) tokens of the traces that are left: as long as those that are in, and as long as was expected.

    Those that are in are the shorter ones at first, and what was expected of a benchmark may be far from what this
    model does there; the more draws are in, the less the expectation counts, and from a fifth on not at all.
    """
    if not counters.committed:
        return expected, expected
    as_those = (counters.owed - counters.committed - counters.failed) * counters.trace_tokens / counters.committed
    faith = max(0.0, 1 - 5 * counters.committed / counters.owed)
    other = as_those + (expected - as_those) * faith
    return min(as_those, other), max(as_those, other)
