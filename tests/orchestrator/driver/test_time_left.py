"""The time left, against sweeps whose end is known: engines of a constant speed, and traces of many lengths."""

import random
from dataclasses import replace

import pytest

from orchestrator.driver.time_left import TimeLeft
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Assign, Reported, Role, ShardNumbers, Tick
from orchestrator.scheduler.work import Policy
from tests.support.builders import Hand, make_core, of_kind, ready, started
from workers.messages import Committed, Heartbeat, TaskEnded

POLICY = Policy(engines=1, slots=2, smallest_shard=4, largest_shard=8)
SPEED = 10.0
"""Tokens per second."""
START = 60.0
"""Seconds that an engine takes to start."""
BEAT = 5.0


def looks(core: Core, lengths: list[int], answer: int) -> tuple[list[tuple[float, float, float]], float]:
    """((now, low, high) at every heartbeat, when it ended) of a sweep with these lengths of traces, one at a time."""
    hand, left, told = Hand(core), TimeLeft(), []
    now, tokens = START, 0

    def happens(event) -> list:
        left.observe(hand.core, event, now)
        return hand(event)

    (engine,) = started(hand(Tick()), Role.ENGINE)
    commands = happens(ready(engine))
    while given := of_kind(commands, Assign):
        task = given[0].task
        assert isinstance(task, ShardNumbers)
        for number in task.numbers:
            generated = lengths[number] + answer
            while generated > 0:
                step = min(generated, BEAT * SPEED)
                generated, tokens, now = generated - step, tokens + step, now + step / SPEED
                happens(Reported(engine, Heartbeat(task.task_id, int(tokens))))
                if (interval := left.interval(hand.core, now)) is not None:
                    told.append((now, *interval))
            report = Committed(task.task_id, (number,), (lengths[number],), lengths[number], answer, 0, 0)
            commands = happens(Reported(engine, report))
        commands = happens(Reported(engine, TaskEnded(task.task_id)))
    return told, now


@pytest.mark.parametrize("answer", [0, 5, 40])
@pytest.mark.parametrize("kind", ["short", "mixed", "to the limit"])
def test_interval_holds_the_truth_at_nine_looks_of_ten(kind: str, answer: int) -> None:
    drawn = random.Random(f"{kind} {answer}")
    lengths = {
        "short": [drawn.randint(1, 8) for _ in range(200)],
        "mixed": [drawn.choice([2, 5, 16]) for _ in range(200)],
        "to the limit": [16] * 200,
    }[kind]
    told, end = looks(make_core(200, replace(POLICY)), lengths, answer)
    assert len(told) >= 50
    right = [low <= end - now <= high for now, low, high in told]
    assert sum(right) >= 0.9 * len(right), [f"{end - now:.0f} in {low:.0f}..{high:.0f}" for now, low, high in told]


def test_nothing_is_told_before_anything_is_generated() -> None:
    hand, left = Hand(make_core(8, POLICY)), TimeLeft()
    (engine,) = started(hand(Tick()), Role.ENGINE)
    assert left.interval(hand.core, 100.0) is None
    left.observe(hand.core, ready(engine), 100.0)
    hand(ready(engine))
    assert left.interval(hand.core, 110.0) is None
    left.observe(hand.core, Reported(engine, Heartbeat("shard-1", 50)), 110.0)
    low, high = left.interval(hand.core, 110.0) or (0.0, 0.0)
    assert 0 < low < high


def test_a_starting_engine_takes_no_part_in_the_rate() -> None:
    """A minute of start-up made the first estimates up to 17 times too long."""
    told, end = looks(make_core(200, POLICY), [16] * 200, 0)
    now, low, high = told[0]
    assert low <= end - now <= high
