"""Shared by all command lines: exit status, errors as messages, where the store is."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.console import say
from orchestrator.grid.errors import InputError
from orchestrator.grid.parse import Grid
from orchestrator.store.store import Store, StoreError

COMPLETE, BAD_INPUT, INCOMPLETE = 0, 2, 3
READER_GONE = 128 + signal.SIGPIPE
"""What a shell reports for a command whose reader closed the pipe early (`status | head`)."""


def grid_argument(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments of every verb."""
    parser.add_argument("grid", metavar="GRID.yaml", help="the sweep's grid")
    parser.add_argument("--store", metavar="URI", help="use this store instead of the grid's")
    return parser


def sweep_parser() -> argparse.ArgumentParser:
    """The command line of `python -m orchestrator.sweep`."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.sweep", description="Run a sweep, or resume it.")
    return grid_argument(parser)


def run_command(command: Callable[[], int]) -> int:
    """Run a verb. Bad input becomes messages on standard error and status 2; a reader that has gone ends it quietly."""
    try:
        status = command()
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()
        return status
    except (InputError, StoreError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        if not _reader_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would fail again
        return READER_GONE


def _reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def open_store(grid: Grid, override: str | None) -> Store:
    """Open the sweep's store. A relative path moves to the home folder in a Ray job, whose own folder is temporary."""
    uri = override or grid.store
    if "://" not in uri and not Path(uri).is_absolute() and in_ray_job():
        moved = Path.home() / "prunesweep" / Path(uri).name
        say(f"store {uri} is relative, and a job's folder is a temporary copy: using {moved}")
        uri = str(moved)
    return Store.open(uri)


def in_ray_job() -> bool:
    """Whether this process is the entry point of a submitted Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
