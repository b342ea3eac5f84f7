"""What all command lines share: here, how one ends whose output goes nowhere."""

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.cli import READER_GONE
from tests.support import ROOT


def test_reader_that_has_gone_ends_a_verb_without_a_traceback(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "plan", "examples/tiny/grid.yaml", "--store", tmp_path / "store"],
        cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(write_end)
    assert (done.returncode, done.stderr) == (READER_GONE, "")


def test_closed_standard_output_changes_no_exit_status() -> None:
    program = (
        "import sys; sys.stdout = None; from orchestrator.cli import run_command; sys.exit(run_command(lambda: 0))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_pipe_that_broke_elsewhere_is_no_reader_that_has_gone() -> None:
    program = (
        "import os, sys; from orchestrator.cli import run_command\n"
        "def verb():\n"
        "    raise BrokenPipeError('a child has ended')\n"
        "sys.exit(run_command(verb))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "a child has ended" in done.stderr
