"""What the commands say to a person: lines on standard error, and how numbers and times are spelled."""

import os
import time
from contextlib import suppress

from rich.console import Console
from rich.text import Text


class Quiet(Console):
    """A console that falls silent when nobody reads it any more (`2>&1 | head`); rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with suppress(OSError, ValueError):  # what is in its buffer must not fail the end of the process either
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


CONSOLE = Quiet(stderr=True, highlight=False)


def say(message: str | Text) -> None:
    """One line on standard error, with the time. Brackets in it are brackets, not rich's markup.

    A line that cannot be written (the log's disk is full, its reader is gone) is left out.
    """
    with suppress(OSError, ValueError):  # ValueError: standard error is closed
        CONSOLE.print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), " ", message), soft_wrap=True)


def duration(seconds: float) -> str:
    """A time that people read: seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plural(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
