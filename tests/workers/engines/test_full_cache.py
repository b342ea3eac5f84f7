"""A key-value cache that holds a third of the draws, on the real engine: what is computed again, and what is found."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from eval.draws import Completion, DrawJob
from eval.prompts import ChatTokenizer
from tests.support.asks import GREEDY, long_prompts
from tests.support.builders import make_context
from tests.workers.engines.conftest import SETTINGS, MakePatch, OneEngine
from workers.draws.in_flight import DrawsInFlight, FinishedDraw
from workers.engines.engine import Capacity
from workers.engines.vllm_engine import VllmEngine
from workers.messages import Item, Shard

DRAWS, PROMPT, SHORT, LONG = 40, 40, (40, 80), (80, 160, 240, 320)
SMALL_MIB, ROOMY_MIB = 3, 64


@dataclass
class Told:
    """A real engine that says it has room for `tokens`, and counts what it computes."""

    engine: VllmEngine
    tokens: int | None
    computed: int = 0
    preempted: int = 0

    def __post_init__(self) -> None:
        scheduler = self.engine._engine.engine_core.engine_core.scheduler
        schedule = type(scheduler).schedule

        def counted(*arguments: Any) -> Any:
            made = schedule(scheduler, *arguments)
            self.computed += made.total_num_scheduled_tokens
            self.preempted += len(made.preempted_req_ids or ())
            return made

        scheduler.schedule = counted

    def capacity(self) -> Capacity:
        true = self.engine.capacity()
        return true if self.tokens is None else replace(true, cache_tokens=self.tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@dataclass(frozen=True)
class Made:
    """What the draws took."""

    computed: int
    preempted: int
    read: int
    """Tokens of the answers' prompts."""
    cached: int
    """How many of these were in the prefix cache."""
    order: tuple[int, ...]
    """The draws whose traces are as long as can be, by their number, as they were complete."""


@contextmanager
def started(base: Path, patch: Path, mib: int) -> Iterator[VllmEngine]:
    engine = VllmEngine(base, None, replace(SETTINGS, max_sequences=DRAWS, cpu_cache_mib=mib))
    engine.load(base, patch)
    yield engine
    engine.close()


def make_draws(base: Path, engine: VllmEngine, tokens: int | None = None) -> Made:
    """Every second draw is four times as long, and all are cut by their limits; the engine says it has `tokens`.

    A later draw has a longer prompt, so that no rule which prefers long prompts looks like one that prefers early ones.
    """
    prompts = [ask.prompt_ids[: PROMPT // 2 + n] for n, ask in enumerate(long_prompts(base, DRAWS, PROMPT * 3 // 2))]
    limits = [LONG if n % 2 else SHORT for n in range(DRAWS)]
    items = [Item(n, f"p{n}", "b", DrawJob(f"p{n}", prompts[n], 0, limits[n])) for n in range(DRAWS)]
    context = replace(make_context("c"), sampling=GREEDY)
    told = Told(engine, tokens)
    flight = DrawsInFlight(told, ChatTokenizer.load(base), None)
    flight.prepare(context)
    waiting = deque((Shard("shard", context, tuple(items)), item) for item in items)
    finished, read, cached, order = 0, 0, 0, []
    while waiting or flight:
        outcomes = [*flight.begin(waiting)]
        for done in told.step():
            if "/answer" in done.name:
                read, cached = read + done.prompt_tokens, cached + done.cached_tokens
            elif isinstance(done.completion, Completion) and len(done.completion.token_ids) == LONG[-1]:
                order.append(int(done.name.partition("/")[0]))
            outcomes += flight.take(done)
        assert all(isinstance(one, FinishedDraw) for one in outcomes), outcomes
        finished += len(outcomes)
    assert finished == DRAWS
    return Made(told.computed, told.preempted, read, cached, tuple(order))


@pytest.fixture(scope="module")
def patch(tied: Path, make_patch: MakePatch, engine: OneEngine) -> Path:
    engine.close()
    return make_patch(tied)


@pytest.fixture(scope="module")
def needed(tied: Path, patch: Path) -> Made:
    """What the draws take where the cache holds them all."""
    with started(tied, patch, ROOMY_MIB) as roomy:
        return make_draws(tied, roomy)


@pytest.fixture(scope="module")
def crowded(tied: Path, patch: Path) -> tuple[Made, Made]:
    """(every draw begun at once, draws begun as the cache has room), on one engine with a small cache."""
    with started(tied, patch, SMALL_MIB) as small:
        assert small.capacity().cache_tokens < DRAWS * (PROMPT + (SHORT[-1] + LONG[-1]) / 2) / 2
        at_once = make_draws(tied, small, tokens=10**9)
        small.load(tied, patch)  # which empties the prefix cache
        return at_once, make_draws(tied, small)


def test_draws_that_begin_as_the_cache_has_room_compute_next_to_nothing_again(
    needed: Made, crowded: tuple[Made, Made]
) -> None:
    at_once, admitted = crowded
    assert needed.preempted == 0
    assert at_once.computed > 1.2 * needed.computed, "the cache holds all draws, so this test shows nothing"
    assert admitted.computed <= 1.05 * needed.computed


def test_forced_answers_overtake_new_traces_and_find_their_own_cached(needed: Made, crowded: tuple[Made, Made]) -> None:
    """Also where draws begin without regard to the cache, and traces are preempted again and again."""
    at_once, admitted = crowded
    assert at_once.preempted > DRAWS / 4
    assert at_once.cached / at_once.read > 0.97 * needed.cached / needed.read
    assert admitted.cached / admitted.read > 0.99 * needed.cached / needed.read


def test_draw_that_began_last_gives_way_so_the_others_are_done_in_order(crowded: tuple[Made, Made]) -> None:
    at_once, _ = crowded
    assert list(at_once.order) == sorted(at_once.order)
