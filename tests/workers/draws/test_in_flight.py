"""Draws in flight on a scripted engine: as many as its cache holds, at least one, and never more than the ceiling."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.draws import Ask
from eval.prompts import ChatTokenizer
from eval.spec import SamplingSpec
from tests.support.builders import TINY, make_context, make_item
from workers.draws.in_flight import DrawsInFlight, FinishedDraw
from workers.engines.engine import EngineSettings, Finished
from workers.engines.scripted_engine import Latency, ScriptedEngine, ScriptedEngines
from workers.messages import Shard

LIMITS, ANSWER, PROMPT = (16, 32), 8, 3
"""`make_context` allows eight tokens for an answer; `make_item` has a prompt of three."""
WHOLE = PROMPT + 1 + LIMITS[-1] + ANSWER + 2
"""What a draw whose trace is cut holds in the end, about: the tags included."""


class Watched(ScriptedEngine):
    """Notes the most that it had in flight."""

    most_draws = most_tokens = 0

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec, rank: int = 0) -> None:
        super().submit(name, ask, sampling, rank)
        draws = {name.partition("/")[0] for name in self._active}
        self.most_draws = max(self.most_draws, len(draws))

    def step(self) -> Sequence[Finished]:
        done = super().step()
        prompts: dict[str, int] = {}
        for name, (ask, _, _) in self._active.items():
            draw = name.partition("/")[0]
            prompts[draw] = max(prompts.get(draw, 0), len(ask.prompt_ids))
        self.most_tokens = max(self.most_tokens, sum(prompts.values()) + sum(self.progress().values()))
        return done


def make(folder: Path, draws: int, cache: int, ceiling: int | None = None, typical: int = 1000) -> Watched:
    """Make so many draws; their traces reach the limit, unless a smaller `typical` length is given."""
    script = ScriptedEngines(
        str(folder), latency=Latency(tokens_per_step=1), typical_length=typical, tail=9.0, cache_tokens=cache
    )
    engine = Watched(TINY / "model", EngineSettings("bfloat16", 512), script)
    context = make_context("c")
    shard = Shard("shard", context, tuple(make_item(f"p{n}", seed=n, limits=LIMITS, number=n) for n in range(draws)))
    flight = DrawsInFlight(engine, ChatTokenizer.load(TINY / "model"), ceiling)
    flight.prepare(context)
    waiting, made = deque((shard, item) for item in shard.items), []
    while waiting or flight:
        made += flight.begin(waiting)
        assert flight, "something waits and nothing runs"
        for finished in engine.step():
            made += flight.take(finished)
    assert sorted(one.item.number for one in made if isinstance(one, FinishedDraw)) == list(range(draws))
    assert all(len(one.draw.answers) == len({min(limit, len(one.draw.trace_ids)) for limit in LIMITS}) for one in made)
    return engine


def test_draws_never_hold_more_than_the_cache_and_use_most_of_it(tmp_path: Path) -> None:
    engine = make(tmp_path, 60, cache=10 * WHOLE)
    assert 0.7 * 10 * WHOLE < engine.most_tokens <= 10 * WHOLE


def test_short_draws_are_begun_in_greater_numbers_once_some_have_ended(tmp_path: Path) -> None:
    long, short = make(tmp_path / "long", 60, 6 * WHOLE), make(tmp_path / "short", 60, 6 * WHOLE, typical=4)
    assert long.most_draws <= 7
    assert short.most_draws >= 1.5 * long.most_draws


def test_cache_without_end_leaves_the_ceiling_alone(tmp_path: Path) -> None:
    assert make(tmp_path / "given", 40, 10**9, ceiling=13).most_draws == 13
    assert make(tmp_path / "sequences", 140, 10**9).most_draws == 128


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cache=st.integers(1, 4 * WHOLE))
def test_one_draw_always_runs_to_its_last_answer_however_small_the_cache(tmp_path: Path, cache: int) -> None:
    engine = make(tmp_path, 5, cache)
    assert 1 <= engine.most_draws <= 1 + cache // (PROMPT + LIMITS[-1])


@pytest.mark.parametrize("ceiling", [1, 2])
def test_ceiling_holds_below_what_the_cache_has_room_for(tmp_path: Path, ceiling: int) -> None:
    assert make(tmp_path, 6, 10**9, ceiling).most_draws == ceiling
