"""What all command lines share: here, how one ends whose output nobody reads to its end."""

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
