"""What the commands say to a person: lines on standard error, and numbers and times as text."""

import os
import time
from contextlib import suppress

from rich.console import Console
from rich.text import Text


class Quiet(Console):
    """A console that goes silent when its reader is gone (`2>&1 | head`), where rich's own would end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with suppress(OSError, ValueError):  # nor may flushing its buffer fail when the process exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


CONSOLE = Quiet(stderr=True, highlight=False)


def say(message: str | Text) -> None:
    """Print one line with the time on standard error. Brackets are printed as they are, not read as rich's markup.

    A line that cannot be written (the log's disk is full, its reader is gone) is dropped.
    """
    with suppress(OSError, ValueError):  # ValueError: standard error is closed
        CONSOLE.print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), " ", message), soft_wrap=True)


def duration(seconds: float) -> str:
    """`90 s`, `12 min` or `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plural(number: int, what: str) -> str:
    """`1 draw`, `2,000 draws`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
