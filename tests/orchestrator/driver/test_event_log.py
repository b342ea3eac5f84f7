"""When the driver keeps an event log, where it goes, and what is in it: real sweeps on scripted engines."""

import shlex
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from orchestrator.cluster.local_backend import LocalBackend
from orchestrator.driver.driver import Driver
from orchestrator.driver.event_log import EventLogWriter, event_log
from orchestrator.driver.make_core import make_core as make_driven_core
from orchestrator.driver.progress import Progress
from orchestrator.driver.worker_recipes import WorkerRecipes
from orchestrator.explain.replay import Replay, open_log
from orchestrator.scheduler.events import Event, Reported, Tick
from orchestrator.store.store import Store
from tests.support.builders import Hand, TinySweep, make_core
from tests.support.object_storage import s3_server
from workers.engines.scripted_engine import Die
from workers.messages import Heartbeat, PatchMade

STRANGE = Reported("prune-1", PatchMade("task", "unheard-of", 0.0, 0.0))


class Foreign(LocalBackend):
    """A backend with a report of another sweep's."""

    def poll(self, seconds: float) -> Sequence[Event]:
        return [STRANGE]


def logs(sweep: TinySweep) -> list[Path]:
    return sorted((sweep.folder / "store" / "logs").glob("*"))


def replayed(log: Path) -> tuple[Replay, int]:
    """A log that was gone through, and how many commands its core gave."""
    replay = Replay(open_log(str(log)))
    return replay, sum(len(step.commands) for step in replay)


def test_sweep_that_is_asked_for_a_log_leaves_one_that_replays_to_the_same_commands(sweep: TinySweep) -> None:
    sweep.variants = [{"method": "dense"}, {"method": "magnitude", "sparsity": 0.5}]
    sweep.runtime = {"event_log": True}
    assert sweep.run(Die(at_ask=3, times=1)) == "done"
    (log,) = logs(sweep)
    assert log.name.startswith("tiny-")
    replay, commands = replayed(log)
    assert replay.different == []
    assert replay.complete
    assert commands > 10
    assert list(replay.summary())[-1] == "the sweep ended: done"


def test_sweep_that_goes_on_replays_from_what_was_stored(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.run(stop_after=2) == "stopped by test"
    (stopped,) = logs(sweep)
    assert f"python -m orchestrator replay {stopped}" in capsys.readouterr().err
    replay, _ = replayed(stopped)
    assert replay.different == []
    assert list(replay.summary())[-1] == "the sweep ended: stopped by test"
    stopped.unlink()
    sweep.limits, sweep.runtime = (8, 48), {"event_log": True}
    assert sweep.run() == "done"
    (log,) = logs(sweep)
    replay, _ = replayed(log)
    assert replay.different == []


def test_sweep_whose_engines_never_come_up_leaves_a_log(sweep: TinySweep) -> None:
    (sweep.folder / "ledger").write_text("a folder cannot be here")
    assert sweep.run() == "no engine worker comes up"
    replay, _ = replayed(*logs(sweep))
    assert replay.different == []
    assert list(replay.summary())[-1] == "the sweep ended: no engine worker comes up"


def run_with_foreign_report(sweep: TinySweep) -> None:
    plan = sweep.plan()
    with event_log(sweep.store, "tiny", False, print) as log, closing(Foreign(cpus=2)) as backend:
        core = make_driven_core(plan, sweep.store, plan.resolved.grid.runtime, backend.devices())
        log.begin(core)
        recipes = WorkerRecipes(plan.resolved.grid.runtime, sweep.store, sweep.folder / "scratch", sweep.engines)
        Driver(core, plan, backend, recipes, [Progress({}, None), log]).run()


def test_event_that_breaks_the_core_is_the_last_in_the_log_whatever_another_view_makes_of_it(sweep: TinySweep) -> None:
    with pytest.raises(KeyError, match="unheard-of"):
        run_with_foreign_report(sweep)
    *_, last = Replay(open_log(str(*logs(sweep))))
    assert last.event == STRANGE
    assert last.error is not None
    assert last.error.startswith("KeyError: 'unheard-of'")


def test_ordinary_sweep_leaves_no_log(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.run() == "done"
    assert logs(sweep) == []
    assert "replay" not in capsys.readouterr().err


# --- the log by itself --------------------------------------------------------------------------------------


def test_exception_that_leaves_the_block_leaves_a_log(tmp_path: Path) -> None:
    said: list[str] = []
    core = make_core(4)
    with suppress(RuntimeError), event_log(Store.open(str(tmp_path)), "s", False, said.append) as log:
        log.begin(core)
        log.observe(core, Tick(), core.handle(Tick(), 1.0), 1.0)
        raise RuntimeError("the driver broke")
    (file,) = (tmp_path / "logs").iterdir()
    replay, commands = replayed(file)
    assert (replay.events, replay.different, commands) == (1, [], 2)
    assert list(replay.summary())[-1] == "the sweep ended: RuntimeError: the driver broke"
    assert said == [
        f"s: to see what was decided and why: python -m orchestrator replay {next((tmp_path / 'logs').iterdir())}"
    ]


def test_log_of_a_sweep_on_object_storage_lies_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    said: list[str] = []
    with s3_server() as bucket:
        store = Store.open(f"s3://bucket/sweeps?endpoint_override={bucket.endpoint}")
        core = make_core(4)
        with event_log(store, "s", True, said.append) as log:
            log.begin(core)
            log.observe(core, Tick(), core.handle(Tick(), 1.0), 1.0)
        (command,) = said
        replay = Replay(open_log(shlex.split(command)[-1]))
        assert len(list(replay)) == 1


def test_log_that_the_store_does_not_take_stays_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").write_text("a file where the store's folder should be")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    said: list[str] = []
    core = make_core(4)
    with event_log(Store.open(str(tmp_path / "store")), "s", True, said.append) as log:
        log.begin(core)
        log.observe(core, Tick(), core.handle(Tick(), 1.0), 1.0)
    (file,) = (tmp_path / "temporary").iterdir()
    assert f"replay {file} (it could not be put into the store" in said[0]
    assert replayed(file)[0].events == 1


def test_log_that_cannot_be_written_is_given_up_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    said: list[str] = []
    core = make_core(4)
    with event_log(Store.open(str(tmp_path)), "s", True, said.append) as log:
        log.begin(core)
        log.observe(core, Tick(), core.handle(Tick(), 1.0), 1.0)
    assert len(said) == 1
    assert said[0].startswith("s: there will be no event log (FileNotFoundError")
    assert list(tmp_path.iterdir()) == []


def observed(log: EventLogWriter, beats: int) -> Hand:
    """A log of a core with one engine, which says so often that it is alive."""
    core = make_core(4)
    log.begin(core)
    hand = Hand(core)
    event: Tick | Reported = Tick()
    for number in range(beats):
        log.observe(core, event, hand(event, after=0.5), hand.now)
        event = Reported("engine-1", Heartbeat("shard-2", number))
    return hand


def test_log_is_bounded_and_tells_how_much_is_missing() -> None:
    log = EventLogWriter("s", pytest.fail, largest=20_000)
    observed(log, 20_000)
    file = log.end("stopped")
    assert file is not None
    assert file.stat().st_size < 30_000
    replay, _ = replayed(file)
    lines = list(replay.summary())
    missing = 20_000 - replay.events
    assert lines[1] == f"the log was full then: the last {missing:,} events are not in it"
    assert 500 < replay.events < 19_000
    assert replay.different == []
    log.discard()


def test_log_of_a_killed_driver_can_be_read_up_to_its_last_seconds() -> None:
    log = EventLogWriter("s", pytest.fail)
    observed(log, 1003)
    assert log.file is not None
    replay, _ = replayed(log.file)  # nobody has ended it
    assert 985 < replay.events < 1003
    assert list(replay.summary())[-1] == "the log breaks off there: the driver was killed, or the file is not whole"
    whole = log.file.read_bytes()
    log.file.write_bytes(whole[: len(whole) // 2])
    cut, _ = replayed(log.file)
    assert 0 < cut.events < replay.events
    assert cut.different == []
    log.discard()
