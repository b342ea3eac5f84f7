"""Grading in child processes that can be killed: an answer that hangs or crashes its grader costs only its own grade.

The children are plain subprocesses of this interpreter (`eval.grader_child`), so the pool works in any thread, in
daemonic processes and in Ray actors, and needs no signals. `close` ends all of them. If this process is killed, they
end when their pipe closes or their processor time is used up.

A child limits its own processor time. The clock on the wall ends only a child that hardly ran, and then it is our
failure, not the text's. What failed is tried again in a child that has graded nothing yet, until `eval.grading.settle`
says whose failure it is.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any

from eval.grader_child import LENGTH, OUT_OF_MEMORY, OUT_OF_TIME
from eval.grading import Grade, GradeItem, check_grader, settle

START_LIMIT = 120.0
"""Seconds a child may take to import math-verify, possibly from a cold network file system."""
OWN_DEATHS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
"""Signals by which a process dies of what it computes. Any other came from outside, as the out-of-memory killer's."""
PROJECT_ROOT = Path(__file__).resolve().parent.parent


class GraderPool:
    """`workers` children, each with `time_limit` seconds of processor time per answer and `memory_limit` bytes of
    address space. A child that has not used up its time `patience` seconds after that time is taken to be stalled.

    Use it as a context manager, or call `close`. Threads may share a pool; their batches run one after another.
    """

    def __init__(
        self, workers: int = 2, time_limit: float = 5.0, memory_limit: int = 2 << 30, patience: float = 120.0
    ) -> None:
        if workers < 1 or time_limit <= 0 or memory_limit < 256 << 20:
            raise ValueError(
                f"grading with workers={workers}, time_limit={time_limit}, memory_limit={memory_limit}: at "
                "least one worker, some seconds and 256 MiB (math-verify alone takes half of that) are "
                "needed."
            )
        self._time_limit = time_limit
        self._memory_limit = memory_limit
        self._patience = patience
        self._lock = Lock()
        self._closed = False
        self._children = [self._spawn() for _ in range(workers)]
        # The children end even if nobody calls `close`: with the pool, or when the interpreter exits.
        self._finalizer = weakref.finalize(self, _kill_all, self._children)

    def __enter__(self) -> "GraderPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill and reap every child. May be called twice."""
        with self._lock:
            self._closed = True
            self._finalizer()

    def grade_many(self, items: Iterable[GradeItem], grader: str = "standard") -> list[Grade]:
        """The grades of `items`, in their order; identical items are graded once.

        Raises `ValueError` for an unknown grader, and `RuntimeError`, with what a child wrote to standard error, if it
        cannot start.
        """
        turns = self.grade_in_turns(float("inf"), items, grader)
        while True:
            try:
                next(turns)
            except StopIteration as done:
                grades: list[Grade] = done.value
                return grades

    def grade_in_turns(
        self, seconds: float, items: Iterable[GradeItem], grader: str = "standard"
    ) -> Generator[None, None, list[Grade]]:
        """As `grade_many`, but only the first of `items`: as many as can be begun within `seconds`, at least one.

        Yields between two turns. A turn begins answers for `seconds` and waits for those that it began, so it takes one
        answer's time longer. The first turn tries each answer once; later ones try again what is not settled.
        """
        check_grader(grader)
        ordered = list(items)
        tries = [[grade] for grade in self._turn(seconds, ordered, grader, fresh=False)]
        while unsettled := [index for index, made in enumerate(tries) if settle(made) is None]:
            yield
            again = self._turn(seconds, [ordered[index] for index in unsettled], grader, fresh=True)
            for index, grade in zip(unsettled, again, strict=False):
                tries[index].append(grade)
        return [settled for made in tries if (settled := settle(made)) is not None]

    def _turn(self, seconds: float, ordered: list[GradeItem], grader: str, fresh: bool) -> list[Grade]:
        """One try of the first of `ordered`, each in a child that has graded nothing yet if `fresh`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("This grader pool is closed. Make a new one.")
            grades = self._try_distinct(deque(dict.fromkeys(ordered)), grader, seconds, fresh)
        return [grades[item] for item in takewhile(grades.__contains__, ordered)]

    def _try_distinct(
        self, waiting: deque[GradeItem], grader: str, seconds: float, fresh: bool
    ) -> dict[GradeItem, Grade]:
        grades: dict[GradeItem, Grade] = {}
        until, begun = time.monotonic() + seconds, 0
        while True:
            if begun and time.monotonic() >= until:
                waiting.clear()
            if not waiting and not any(child.item for child in self._children):
                return grades
            for index, child in enumerate(self._children):
                if not child.ready or child.item is not None or not waiting:
                    continue
                # Killed while idle, which is no answer's fault; or used, where a fresh one is wanted.
                if child.process.poll() is not None or (fresh and child.used):
                    self._replace(index)
                    continue
                child.send(waiting.popleft(), grader, self._time_limit + self._patience)
                begun += 1
            self._wait()
            for index, child in enumerate(self._children):
                outcome = child.outcome()
                if outcome is None:
                    continue
                if child.item is not None:
                    grades[child.item] = outcome
                    child.item = None
                # After a failure the next answer finds a child in which nothing is left of it.
                if child.ended or outcome.grader_failed:
                    self._replace(index)

    def _replace(self, index: int) -> None:
        self._children[index].kill()
        self._children[index] = self._spawn()

    def _wait(self) -> None:
        """Sleep until a child has written something, or until the nearest deadline."""
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.replies, selectors.EVENT_READ)
            nearest = min(child.deadline for child in self._children)
            selector.select(max(0.0, min(nearest - time.monotonic(), START_LIMIT)))

    def _spawn(self) -> "_Child":
        return _Child(self._time_limit, self._memory_limit)


def _kill_all(children: list["_Child"]) -> None:
    for child in children:
        child.kill()


class _Child:
    """One child process, its pipes, and the answer it is working on."""

    def __init__(self, time_limit: float, memory_limit: int) -> None:
        search = os.pathsep.join(filter(None, (str(PROJECT_ROOT), os.environ.get("PYTHONPATH"))))
        with ExitStack() as files:
            self.errors: IO[bytes] = files.enter_context(tempfile.TemporaryFile())
            self.process = subprocess.Popen(
                # -P: the child must import this project's eval, whatever folder it happens to start in.
                [sys.executable, "-P", "-m", "eval.grader_child", str(time_limit), str(memory_limit)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
                bufsize=0,
            )
            self._files = files.pop_all()  # open as long as the child lives
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests: IO[bytes] = self.process.stdin
        self.replies: IO[bytes] = self.process.stdout
        self.deadline = time.monotonic() + START_LIMIT
        self.item: GradeItem | None = None
        self.ready = False
        self.used = False
        """Whether it has been given an answer."""
        self.ended = False
        self._time_limit = time_limit
        self._found: tuple[str | None, str | None] = (None, None)
        self._buffer = b""

    def send(self, item: GradeItem, grader: str, seconds: float) -> None:
        """Send one answer to be graded, and wait for its grade for up to `seconds`."""
        body = json.dumps(asdict(item) | {"grader": grader}).encode()
        self.item, self.used, self._found = item, True, (None, None)
        self.deadline = time.monotonic() + seconds
        try:
            pending = memoryview(LENGTH.pack(len(body)) + body)
            while pending:
                pending = pending[self.requests.write(pending) :]
        except BrokenPipeError:
            return  # it died between two answers: outcome() will see the end of its replies

    def outcome(self) -> Grade | None:
        """The grade of the current answer if there is one: by a reply, a death, or the deadline. Never blocks."""
        while _readable(self.replies):
            chunk = os.read(self.replies.fileno(), 1 << 16)
            if not chunk:
                return self._death()
            self._buffer += chunk
            while (frame := self._frame()) is not None:
                if "ready" in frame:
                    self.ready, self.deadline = True, float("inf")
                elif "found" in frame:
                    self._found = (frame["found"][0], frame["found"][1])
                else:
                    self.deadline = float("inf")
                    return Grade(**frame)
        if time.monotonic() >= self.deadline:
            written = self._standard_error()
            self.kill()
            if not self.ready:
                raise RuntimeError(f"The grader process did not start within {START_LIMIT:.0f} s.{written}")
            return self._failure("stalled: the grader process hardly ran, on a busy machine or suspended")
        return None

    def kill(self) -> None:
        """Kill and reap the process, and close its pipes. May be called twice."""
        self.ended = True
        self.process.kill()
        self.process.wait()
        self.requests.close()
        self.replies.close()
        self._files.close()

    def _death(self) -> Grade:
        status = self.process.wait()
        written = self._standard_error()
        self.kill()
        if not self.ready:
            raise RuntimeError(f"The grader process ended with status {status} before it was ready.{written}")
        if status == -OUT_OF_TIME:
            return self._failure(f"timeout: {self._time_limit:g} s of processor time were used up")
        if status == OUT_OF_MEMORY:
            return self._failure("memory: the limit was reached")
        if status < 0 and -status not in OWN_DEATHS:
            return self._failure(f"killed: the grader process was ended by {_signal_name(-status)}")
        by = _signal_name(-status) if status < 0 else f"with status {status}"
        return self._failure(f"crash: the grader process died {by}")

    def _failure(self, cause: str) -> Grade:
        extracted, rule = self._found
        return Grade("UNPARSED", extracted, cause, rule)

    def _frame(self) -> dict[str, Any] | None:
        if len(self._buffer) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        frame: dict[str, Any] = json.loads(self._buffer[LENGTH.size : end])
        self._buffer = self._buffer[end:]
        return frame

    def _standard_error(self) -> str:
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        return f" It wrote:\n{text[-2000:]}" if text else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _readable(stream: IO[bytes]) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(0))
