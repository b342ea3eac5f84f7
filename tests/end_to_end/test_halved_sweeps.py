"""Sweeps that end half-way and are completed by another driver, with real drivers, each on a Ray of its own.

One meets a disk that stays full. One is stopped (SIGSTOP), another driver takes over, and then the first goes on. The
second runs in a process namespace of its own, as on another machine: on its own machine a stopped driver keeps its
lease (tests/orchestrator/store/test_lease.py).
"""

import os
import re
import select
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.drill.compare_stores import compare_stores
from orchestrator.drill.faults import SweepProcess
from tests.support.drilled_demo import ROOT, Demo
from tests.support.faulty_store import Action, Moment, StoreFault, repair_disk

GRID = """
name: halved
store: unused
models: [examples/tiny/model]
variants: [{method: dense}]
token_limits: [8, 16]
benchmarks: [examples/tiny/chain-mixed.jsonl]
sampling: {temperature: 0.0}
budget: {mode: native-strict, answer_tokens: 16}
runtime: {engines: 1, slots: 2, in_flight: 4, commit_seconds: 0.001, store_seconds: 2, attempts: 1}
"""
FULL = StoreFault("draws", Moment.DURING, action=Action.FULL, at=40)
ELSEWHERE = ("unshare", *(("--map-root-user",) if os.geteuid() else ()), "--pid", "--fork", "--mount-proc")
BEAT = ("--beat", "0.5")
SECONDS = 60

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    with pytest.MonkeyPatch.context() as environment:
        environment.chdir(ROOT)
        demo = Demo(tmp_path_factory.mktemp("undisturbed"), GRID)
        demo.finish_here()
        return demo


@pytest.fixture
def demo(undisturbed: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """The same sweep, with its patch made and nothing else."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(ROOT)
    demo = Demo(tmp_path / "halved", GRID)
    shutil.copytree(Path(undisturbed.store.root, "patches"), Path(demo.store.root, "patches"))
    return demo


def test_disk_that_stays_full_ends_the_sweep_and_the_next_run_completes_it(
    undisturbed: Demo, demo: Demo, tmp_path: Path
) -> None:
    driven = demo.start((FULL,))
    while driven.status is None:
        driven.next_line(1.0)
    assert driven.status == 3, demo.log()
    said = " ".join(demo.log().split())
    assert re.search(r"engine-\d+ waits.*cannot be written \(full\).*make room there", said)
    assert "halved: not finished: the store cannot be used" in said
    held, made = demo.held(), demo.traces()
    assert 0 < len(held) < 100
    assert {made[trace] for trace in held} == {1}
    repair_disk(demo.ledger)
    assert demo.finish() == 0, demo.log()
    again = {trace for trace, count in (demo.traces() - made).items() if trace in held}
    assert not again
    found = compare_stores(undisturbed.store, demo.store, tmp_path)
    assert found.identical, found.lines()
    assert not found.resampled


def hear_of(driven: SweepProcess, words: str) -> str:
    """Listen until the sweep says this."""
    while driven.status is None:
        if words in (line := driven.next_line(1.0) or ""):
            return line
    raise AssertionError(f"it ended with status {driven.status} and never said {words!r}")


def wait_gone(pid: int) -> bool:
    """Whether a process ends in time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], SECONDS)[0])
    finally:
        os.close(process)


@pytest.fixture
def elsewhere() -> tuple[str, ...]:
    """What to run a command by, so that it is as if on another machine."""
    if subprocess.run([*ELSEWHERE, "true"]).returncode != 0:
        pytest.skip("this kernel gives us no process namespace")
    return ELSEWHERE


def test_stopped_driver_loses_its_lease_and_its_workers_and_commits_nothing_when_it_goes_on(
    undisturbed: Demo, demo: Demo, tmp_path: Path, elsewhere: tuple[str, ...]
) -> None:
    first = demo.start((), *BEAT, "--step", "0.4", log="first.log")
    second: SweepProcess | None = None
    try:
        hear_of(first, "first draws committed")
        workers = [worker.pid for worker in first.workers.values()]
        first.process.send_signal(signal.SIGSTOP)
        second = demo.start((), *BEAT, before=elsewhere, log="second.log")
        hear_of(second, "checking whether its driver is alive")
        hear_of(second, "starting Ray")
        held, made = demo.held(), demo.traces()
        while second.status is None:
            second.next_line(1.0)
        assert second.status == 0, demo.log("second.log")
        assert all(wait_gone(pid) for pid in workers), "a stopped driver's workers hold no device"
        rows = [(row, count) for row, count in committed(demo).items() if count > 1]
        first.process.send_signal(signal.SIGCONT)
        while first.status is None:
            first.next_line(1.0)
    finally:
        for one in (first, second):
            if one is not None and one.status is None:
                one.kill()
    assert first.status == 3
    assert "another driver has taken over halved" in demo.log("first.log")
    assert "not finished by this driver" in demo.log("first.log")
    assert rows == []
    assert set(committed(demo).values()) == {1}
    again = {name for name, count in (demo.traces() - made).items() if name in held}
    assert not again
    assert compare_stores(undisturbed.store, demo.store, tmp_path).identical


def committed(demo: Demo) -> Counter[tuple[str, str, int]]:
    """How often each draw is in the store."""
    tables = [
        demo.store.read("draws", context, ["context_id", "prompt_id", "seed"]) for context in demo.store.contexts()
    ]
    return Counter(tuple(row.values()) for table in tables for row in table.to_pylist())
