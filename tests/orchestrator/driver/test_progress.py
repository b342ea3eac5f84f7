"""What a person reads while a sweep runs: names they know, a line that stays a line, an end told by tokens."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from orchestrator.console import duration, say
from orchestrator.driver.progress import Progress, closing_line, notable, status_line
from orchestrator.scheduler.events import Reported, Role, Tick, WorkerLost, WorkerReady
from orchestrator.scheduler.work import PatchState, Policy
from tests.support.builders import Hand, make_core, ready, started
from workers.failure import Failure, FailureKind
from workers.messages import PatchMade, WeightsLoaded, WorkerInfo

POLICY = Policy(engines=1000, slots=1000, smallest_shard=1, largest_shard=4)


def test_line_of_a_thousand_workers_is_a_line_and_tells_what_they_do() -> None:
    hand = Hand(make_core(100_000, POLICY))
    for worker in started(hand(Tick()), Role.ENGINE)[:400]:
        hand(ready(worker))
    line = status_line(hand.core, 30.0)
    assert "engines: 600 starting, 400 busy" in line
    assert len(line) < 150


def test_time_left_is_told_as_an_interval() -> None:
    core = make_core(8, POLICY)
    assert "left" not in status_line(core, 10.0)
    assert "10 s, 30 s to 2 min left" in status_line(core, 10.0, (30.0, 120.0))


@pytest.mark.parametrize(("seconds", "told"), [(95.2, "95 s"), (3860, "64 min"), (19_080, "5.3 h")])
def test_durations_are_told_as_people_tell_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_variants_are_told_by_the_names_of_the_grid() -> None:
    labels = {"39a1": "wanda + uniform at 0.5"}
    (made,) = notable(Reported("prune-1", PatchMade("task", "39a1", 0.5, 12.34)), [], labels)
    assert made.plain == "wanda + uniform at 0.5 made in 12.3 s, sparsity 0.5000 (patch 39a1)"
    (held,) = notable(Reported("engine-2", WeightsLoaded("task", "39a1", 0.123, 0.04)), [], labels)
    assert held.plain == "engine-2 holds wanda + uniform at 0.5, proved in 0.12 s (canary within 0.040 nats)"


def test_lost_worker_is_told_with_its_log_whatever_brackets_its_cause_has(capsys: pytest.CaptureFixture[str]) -> None:
    lost = WorkerLost("engine-2", Failure(FailureKind.ENGINE_LOST, "[rank0] no [/tmp/x]", "/logs/worker.err"))
    (line,) = notable(lost, [], {})
    say(line)
    assert "engine-2 lost: engine-lost: [rank0] no [/tmp/x] (log: /logs/worker.err)" in capsys.readouterr().err


def test_closing_line_counts_one_as_one() -> None:
    core = make_core(8, POLICY, PatchState.OWED)
    core.state.counters.engines_started = 1
    assert " · 1 engine started · 0 swaps in 0.0 s" in closing_line(core)


def test_closing_line_tells_thinking_from_answers_where_they_are_two() -> None:
    core = make_core(8, POLICY)
    core.state.counters.trace_tokens = 9432
    assert " · 9,432 tokens · " in closing_line(core)
    core.state.counters.answer_tokens = 1000
    assert " · 9,432 thinking and 1,000 answer tokens · " in closing_line(core)


def test_room_of_an_engine_is_told_once_for_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    hand = Hand(make_core(8, replace(POLICY, engines=2, slots=2)))
    engines, progress = started(hand(Tick()), Role.ENGINE), Progress({}, None)
    assert len(engines) == 2
    for engine in engines:
        event = WorkerReady(engine, WorkerInfo(engine, "host", 1, settings={"cache_tokens": "391040"}))
        progress.observe(hand.core, event, hand(event), 0.0)
    told = capsys.readouterr().err
    assert told.count("engines of model, 4 blocks: cache of 391,040 tokens, room for 24,440 traces of 16") == 1


@pytest.mark.parametrize("reader", ["gone", "full"])
def test_standard_error_that_takes_nothing_any_more_ends_nothing(reader: str) -> None:
    script = "from orchestrator.driver.progress import say; say('one'); say('two'); print('goes on')"
    if reader == "full":
        error = os.open("/dev/full", os.O_WRONLY)
    else:
        end, error = os.pipe()
        os.close(end)
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=error, text=True)
    os.close(error)
    assert (done.stdout, done.returncode) == ("goes on\n", 0)
