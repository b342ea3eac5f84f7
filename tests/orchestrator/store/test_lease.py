"""Two drivers on one sweep: the second is refused while the first is alive, and takes over from a dead one."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.store.claim import Claim, describe, read_claim
from orchestrator.store.lease import SweepHeld, claim_path, hold_lease, own_claim
from orchestrator.store.store import Store
from tests.support import ROOT

CLAIM = Claim("token", "far", "boot pid:1", 7, "100", "ada", "sweep grid.yaml", 0.0, beat_seconds=5.0, beat=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def never(reason: str) -> None:
    raise AssertionError(reason)


@contextmanager
def driver(store: Store, name: str = "sweep") -> Iterator[subprocess.Popen]:
    """Another process that holds the lease, until it is killed or its standard input ends."""
    script = (
        "import sys; from orchestrator.store.lease import hold_lease; from orchestrator.store.store import Store\n"
        f"with hold_lease(Store.open({store.uri!r}), {name!r}, print, print, 0.02):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=-1, stdout=-1, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_second_driver_is_refused_with_who_and_where_and_a_killed_one_is_succeeded_at_once(store: Store) -> None:
    with driver(store) as first:
        with pytest.raises(SweepHeld, match=rf"process {first.pid} on .*, since 20.*kill {first.pid}"):
            hold_lease(store, "sweep", never, never).__enter__()
        first.kill()
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
        with hold_lease(store, "sweep", never, never):
            assert read_claim(store.get_document(claim_path("sweep"))).pid == os.getpid()
    assert store.get_document(claim_path("sweep")) is None


def test_driver_that_is_stopped_keeps_its_lease_on_its_machine(store: Store) -> None:
    with driver(store) as first:
        first.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(SweepHeld, match=str(first.pid)):
            hold_lease(store, "sweep", never, never).__enter__()


def test_driver_that_ends_releases_its_lease(store: Store) -> None:
    with driver(store) as first:
        first.communicate()
        assert store.get_document(claim_path("sweep")) is None


def test_process_number_that_came_again_is_not_taken_for_the_driver(store: Store) -> None:
    store.put_document(claim_path("sweep"), replace(own_claim(5.0), started="1").document())
    with hold_lease(store, "sweep", never, never):
        pass


def test_two_sweeps_share_a_store(store: Store) -> None:
    with driver(store, "one"), hold_lease(store, "two", never, never):
        pass


def test_silent_driver_of_another_machine_is_succeeded_and_said_to_be_looked_for(store: Store) -> None:
    store.put_document(claim_path("sweep"), replace(CLAIM, beat_seconds=0.01).document())
    said: list[str] = []
    with hold_lease(store, "sweep", said.append, never):
        assert read_claim(store.get_document(claim_path("sweep"))).host != "far"
    assert len(said) == 1
    assert describe(CLAIM) in said[0]


def test_beating_driver_of_another_machine_keeps_its_lease(store: Store) -> None:
    """Its beats are written by hand, each when it has been looked at."""
    claim = replace(CLAIM, beat_seconds=0.05)
    store.put_document(claim_path("sweep"), claim.document())

    def beat(_: str) -> None:
        store.put_document(claim_path("sweep"), replace(claim, beat=claim.beat + 1).document())

    with pytest.raises(SweepHeld, match="ada, process 7 on far, since 1970"):
        hold_lease(store, "sweep", beat, never).__enter__()
    assert read_claim(store.get_document(claim_path("sweep"))).host == "far"


def test_driver_whose_lease_was_taken_is_told_and_leaves_the_other_s_claim(store: Store) -> None:
    lost, reasons = threading.Event(), []

    def on_lost(reason: str) -> None:
        reasons.append(reason)
        lost.set()

    with hold_lease(store, "sweep", never, on_lost, beat_seconds=0.01):
        # Its beat may overwrite a claim that came between its reading and its writing: the other would see that.
        while not lost.wait(0.05):
            store.put_document(claim_path("sweep"), CLAIM.document())
    assert len(reasons) == 1
    assert describe(CLAIM) in reasons[0]
    assert read_claim(store.get_document(claim_path("sweep"))) == CLAIM


def test_driver_whose_successor_has_ended_already_is_told_too(store: Store) -> None:
    lost, reasons = threading.Event(), []

    def on_lost(reason: str) -> None:
        reasons.append(reason)
        lost.set()

    with hold_lease(store, "sweep", never, on_lost, beat_seconds=0.01) as lease:
        while not lost.wait(0.05):  # its beat may be on its way
            store.files.remove(claim_path("sweep"))
        assert lease.taken_by() == "a driver that has ended since"
    assert len(reasons) == 1
    assert store.get_document(claim_path("sweep")) is None


def test_of_many_that_start_at_once_one_drives(store: Store) -> None:
    start, end = threading.Barrier(6), threading.Event()
    outcomes: list[str] = []
    told = threading.Semaphore(0)

    def drive() -> None:
        start.wait()
        try:
            with hold_lease(Store.open(store.uri), "sweep", never, never):
                outcomes.append("held")
                told.release()
                end.wait()
        except SweepHeld:
            outcomes.append("refused")
            told.release()

    threads = [threading.Thread(target=drive) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert told.acquire(timeout=60)
    end.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", *["refused"] * 5]
