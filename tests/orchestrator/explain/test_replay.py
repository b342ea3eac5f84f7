"""`python -m orchestrator replay LOG`: what it tells of a real sweep, and of logs that were cut or tampered with."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.__main__ import main
from orchestrator.cli import BAD_INPUT, COMPLETE, INCOMPLETE
from tests.support.builders import TINY, TinySweep
from workers.engines.scripted_engine import Die

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a sweep of two variants, whose first engine dies at its third ask."""
    sweep = TinySweep(tmp_path_factory.mktemp("sweep"))
    sweep.variants = [{"method": "dense"}, {"method": "magnitude", "sparsity": 0.5}]
    sweep.runtime = {"event_log": True}
    assert sweep.run(Die(at_ask=3, times=1)) == "done"
    (file,) = (sweep.folder / "store" / "logs").iterdir()
    return file


def replay(log: Path, capsys: Capture, *options: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    capsys.readouterr()
    status = main(["replay", str(log), *options])
    return status, *capsys.readouterr()


def changed(log: Path, target: Path, change: Callable[[list[Any]], None]) -> Path:
    """A copy of a log whose lines were changed."""
    lines = [json.loads(line) for line in gzip.decompress(log.read_bytes()).splitlines()]
    change(lines)
    target.write_bytes(gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))
    return target


def first(lines: list[Any], command: str) -> int:
    """The first event that led to such a command."""
    return next(n for n, line in enumerate(lines[1:-1], 1) if any(c[0] == command for c in line[2]))


def test_each_decision_is_told_with_its_reason(log: Path, capsys: Capture) -> None:
    status, out, err = replay(log, capsys)
    assert status == COMPLETE
    assert out.startswith("      #1       0.0 s  time passed\n")
    assert "→ start prune-1: variants to prune: 2, devices that prune: 0\n" in out
    assert "→ start engine-2 for 4 layers: 16 draws wait for engines of 4 layers, of which there are 0;" in out
    assert "→ engine-2 evaluates 8 draws of dense (shard-5): engine-2 has no weights yet; dense had 8 waiting " in out
    assert "engine-2 is gone: engine-lost: died at ask 3, as scripted\n" in out
    assert "they were lost 1 time, so they run alone\n" in out
    assert "→ end the sweep: done: no worker and no check of the store is left\n" in out
    assert "evaluates 8 draws of magnitude + uniform at 0.5" in out
    assert "commit" in out
    assert "events replayed" in err
    assert "the sweep ended: done" in err


def test_story_of_a_worker_holds_what_concerns_it(log: Path, capsys: Capture) -> None:
    _, out, _ = replay(log, capsys, "--worker", "engine-2")
    assert "→ start engine-2" in out
    assert "engine-2 is ready on" in out
    assert "engine-2: holds dense, proved in" in out
    assert "engine-2 is gone" in out
    assert "→ look up " in out
    assert "prune-1 takes" not in out
    assert "grade-3 is ready" not in out


def test_story_of_a_draw_is_part_of_its_contexts(log: Path, capsys: Capture) -> None:
    header = json.loads(gzip.decompress(log.read_bytes()).splitlines()[0])
    dense = header["start"]["contexts"][0]["context"][1]
    _, whole, _ = replay(log, capsys, "--context", dense[:8])
    _, draw, _ = replay(log, capsys, "--draw", f"{dense[:8]}/0")
    _, none, _ = replay(log, capsys, "--draw", f"{dense[:8]}/999")
    assert "magnitude" not in whole.replace("of which 0 draws wait", "")
    assert [line.split()[3] for line in draw.splitlines() if "evaluates" in line] == [
        "8",
        "4",
    ]  # the second time in halves
    assert whole.count("evaluates") == 3
    assert none.count("evaluates") == 0
    assert {line for line in draw.splitlines() if "→" in line} < {line for line in whole.splitlines() if "→" in line}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--context", "zzz"], "error: zzz: no context in this log begins like that"),
        (["--context", ""], "error: : 2 contexts in this log begin like that; `--at 1` lists its contexts"),
        (["--draw", "12"], "error: --draw 12: give it as CONTEXT/NUMBER, such as 3fa9/12"),
        (["--worker", "engin-2"], "error: --worker engin-2: the log has no such worker. Did you mean 'engine-2'?"),
        (["--at", "100000"], "error: --at 100000: the log has events 1 to "),
    ],
)
def test_what_is_not_in_the_log_is_bad_input(log: Path, capsys: Capture, options: list[str], message: str) -> None:
    status, out, err = replay(log, capsys, *options)
    assert (status, out) == (BAD_INPUT, "")
    assert err.startswith(message)


def test_state_at_an_event_shows_the_fleet_and_what_is_owed(log: Path, capsys: Capture) -> None:
    lines = gzip.decompress(log.read_bytes()).splitlines()
    lost = next(n for n, line in enumerate(lines[1:], 1) if b'["WorkerLost","engine-2"' in line)
    _, before, _ = replay(log, capsys, "--at", str(lost - 1))
    _, after, _ = replay(log, capsys, "--at", str(lost))
    assert "Of 16 owed draws 0 are committed, 0 given up, 8 at engines, 8 wait, and 0 are looked up" in before
    assert re.search(r"\nengine-2 +busy +dense +0\.0 s ago +dense \(shard-5\)\n", before)
    assert "Of 16 owed draws 0 are committed, 0 given up, 0 at engines, 8 wait, and 8 are looked up" in after
    assert "engine-2" not in after.partition("\n")[2]
    _, one, _ = replay(log, capsys, "--at", str(lost - 1), "--worker", "engine-2")
    assert "prune-1" not in one.partition("\n")[2], "the first line tells the event, whoever's it is"


def test_json_has_one_object_for_each_event(log: Path, capsys: Capture) -> None:
    _, out, _ = replay(log, capsys, "--json")
    told = [json.loads(line) for line in out.splitlines()]
    logged = [json.loads(line) for line in gzip.decompress(log.read_bytes()).splitlines()[1:-1]]
    assert [one["number"] for one in told] == list(range(1, len(logged) + 1))
    assert [one["event"] for one in told] == [line[1] for line in logged]
    assert [[c["command"] for c in one["commands"]] for one in told] == [line[2] for line in logged]
    assert all(command["reason"] for one in told for command in one["commands"])


# --- logs that are not as they were written -----------------------------------------------------------------


def test_command_that_was_tampered_with_is_reported_with_its_event(log: Path, tmp_path: Path, capsys: Capture) -> None:
    place = 0

    def change(lines: list[Any]) -> None:
        nonlocal place
        place = first(lines, "Assign")
        lines[place][2][0][1] = "engine-99"

    status, out, err = replay(changed(log, tmp_path / "log", change), capsys)
    assert status == INCOMPLETE
    assert f"EVENT {place}: the replayed core decides otherwise than the log says\n" in out
    assert "only in the log: engine-99 takes" in out
    assert "only replayed: prune-1 takes" in out
    assert f"the replayed core did not decide what the log says at event {place}\n" in err


def test_event_that_makes_the_core_fail_ends_the_replay_with_its_cause(
    log: Path, tmp_path: Path, capsys: Capture
) -> None:
    def change(lines: list[Any]) -> None:
        lines[3][1] = ["Reported", "prune-1", ["PatchMade", "task", "unheard-of", 0.0, 0.0]]

    status, out, err = replay(changed(log, tmp_path / "log", change), capsys)
    assert status == INCOMPLETE
    assert "EVENT 3: the core fails here: KeyError: 'unheard-of' (" in out
    assert "the event was: prune-1: made unheard-of in 0.0 s\n" in out
    assert "#4 " not in out
    assert "3 events replayed" in err
    told = [json.loads(line) for line in replay(tmp_path / "log", capsys, "--json")[1].splitlines()]
    assert told[-1]["error"].startswith("KeyError: 'unheard-of'")


@pytest.mark.parametrize("part", [0.8, 0.95])
def test_log_that_was_cut_is_replayed_up_to_the_cut(log: Path, tmp_path: Path, capsys: Capture, part: float) -> None:
    whole = log.read_bytes()
    (tmp_path / "log").write_bytes(whole[: int(len(whole) * part)])
    status, _, err = replay(tmp_path / "log", capsys)
    assert status == COMPLETE
    assert "the log breaks off there: the driver was killed, or the file is not whole\n" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be replayed: it is no gzip file, or breaks off in its first line"),
        (b"plain text", "cannot be replayed: it is no gzip file, or breaks off in its first line"),
        (gzip.compress(b'{"a": 1}\n', mtime=0), "cannot be replayed: this is not an event log"),
        (None, "there is no such file"),
    ],
)
def test_what_is_no_log_is_bad_input(tmp_path: Path, capsys: Capture, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "log").write_bytes(content)
    status, out, err = replay(tmp_path / "log", capsys)
    assert (status, out) == (BAD_INPUT, "")
    assert message in err


def test_line_that_is_damaged_is_bad_input_with_its_number(log: Path, tmp_path: Path, capsys: Capture) -> None:
    def change(lines: list[Any]) -> None:
        lines[4] = [1.0, ["Unknown"], []]

    status, _, err = replay(changed(log, tmp_path / "log", change), capsys)
    assert status == BAD_INPUT
    assert "error: event 4 of the log cannot be read" in err


@pytest.fixture(scope="module")
def log_of_patches_together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a sweep whose two variants share a pass over the dense model."""
    sweep = TinySweep(tmp_path_factory.mktemp("together"))
    data = {"data": str(TINY / "calibration.jsonl"), "samples": 4, "tokens": 32}
    sweep.variants = [{"method": "magnitude", "allocator": "owl", "sparsity": [0.2, 0.3], "calibration": data}]
    sweep.runtime = {"event_log": True, "slots": 1}
    assert sweep.run() == "done"
    (file,) = (sweep.folder / "store" / "logs").iterdir()
    return file


def test_patches_that_are_made_together_are_told_as_one_task(log_of_patches_together: Path, capsys: Capture) -> None:
    _, out, _ = replay(log_of_patches_together, capsys)
    (taken,) = [line for line in out.splitlines() if "prune-1 takes" in line]
    assert "takes the pruning of magnitude + owl at 0.2, magnitude + owl at 0.3 (pruning-" in taken
    assert taken.endswith("; 1 more share its passes")
    start = json.loads(gzip.decompress(log_of_patches_together.read_bytes()).splitlines()[0])["start"]
    for work in start["contexts"]:
        _, story, _ = replay(log_of_patches_together, capsys, "--context", work["context"][1])
        assert "prune-1 takes the pruning" in story
        assert story.count("prune-1: made magnitude + owl") == 1, "each patch is told in its own story"
