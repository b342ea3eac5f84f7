"""A process that dies with another one, whatever it is doing."""

import os
import select
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

PARENT = """
import multiprocessing, os, time
from workers.parent_death import die_with

def child(started):
    die_with(os.getppid())
    started.send_bytes(b"")
    while True:
        pass

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    started, tell = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(tell,))
    process.start()
    started.recv_bytes()
    print(process.pid, flush=True)
    time.sleep(600)
"""


def test_process_dies_with_the_one_that_it_was_told_to(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    ended, _, _ = select.select([child], [], [], 20)
    assert ended
