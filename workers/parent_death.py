"""A process that does not outlive the one it works for."""

import os
import signal
import threading
from multiprocessing.connection import wait


def die_with(process: int) -> None:
    """From now on this process is killed the moment `process` (a pid) ends, however that ends.

    A rank must not keep its device when the engine is gone. A worker must not commit when its node counts as lost: its
    draws are about to be given to others.
    """
    ended = os.pidfd_open(process)

    def wait_and_die() -> None:
        wait([ended])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_die, name="follow", daemon=True).start()
