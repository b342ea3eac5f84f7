"""Ends a process when the one that it works for ends: PDEATHSIG, for any process."""

import os
import signal
import threading
from multiprocessing.connection import wait


def die_with(pid: int) -> None:
    """From now on, kill this process as soon as process `pid` ends, for whatever reason.

    A rank must not keep its device when its engine has ended. A worker must not commit when its node counts as lost:
    its draws are about to be assigned to others.
    """
    ended = os.pidfd_open(pid)

    def wait_and_die() -> None:
        wait([ended])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_die, name="parent-death", daemon=True).start()
