"""Grading in child processes that can be killed: an answer that hangs or crashes its grader costs only its own grade.

The children are plain subprocesses of this interpreter (`eval.grader_child`), so the pool works in any thread, in
daemonic processes and in Ray actors, and needs no signals. `close` ends all of them. If this process is killed, they
end when their pipe closes or their processor-time limit is reached.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any

from eval.grader_child import LENGTH
from eval.grading import Grade, GradeItem, check_grader

START_LIMIT = 120.0
"""Seconds a child may take to import math-verify, possibly from a cold network file system."""
PROJECT_ROOT = Path(__file__).resolve().parent.parent


class GraderPool:
    """`workers` children, each with `time_limit` seconds per answer and `memory_limit` bytes of address space.

    Use it as a context manager, or call `close`. Threads may share a pool; their batches run one after another.
    """

    def __init__(self, workers: int = 2, time_limit: float = 5.0, memory_limit: int = 2 << 30) -> None:
        if workers < 1 or time_limit <= 0 or memory_limit < 256 << 20:
            raise ValueError(
                f"grading with workers={workers}, time_limit={time_limit}, memory_limit={memory_limit}: at "
                "least one worker, some seconds and 256 MiB (math-verify alone takes half of that) are "
                "needed."
            )
        self._time_limit = time_limit
        self._memory_limit = memory_limit
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
        return self.grade_for(float("inf"), items, grader)

    def grade_for(self, seconds: float, items: Iterable[GradeItem], grader: str = "standard") -> list[Grade]:
        """As `grade_many`, but only for the first of `items`: as many as can be begun within `seconds`, at least one.

        What was begun is waited for, so the call may take one answer's time limit longer.
        """
        check_grader(grader)
        ordered = list(items)
        with self._lock:
            if self._closed:
                raise RuntimeError("This grader pool is closed. Make a new one.")
            grades = self._grade_distinct(deque(dict.fromkeys(ordered)), grader, seconds)
        return [grades[item] for item in takewhile(grades.__contains__, ordered)]

    def _grade_distinct(self, waiting: deque[GradeItem], grader: str, seconds: float) -> dict[GradeItem, Grade]:
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
                if child.process.poll() is not None:  # killed while idle: no answer's fault
                    child.kill()
                    self._children[index] = self._spawn()
                    continue
                child.send(waiting.popleft(), grader, self._time_limit)
                begun += 1
            self._wait()
            for index, child in enumerate(self._children):
                outcome = child.outcome()
                if outcome is None:
                    continue
                if child.item is not None:
                    grades[child.item] = outcome
                    child.item = None
                if child.ended:
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
        self.ended = False
        self._buffer = b""

    def send(self, item: GradeItem, grader: str, time_limit: float) -> None:
        """Send one answer to be graded, and start its clock."""
        frame = {
            "text": item.text,
            "gold": item.gold,
            "kind": item.kind,
            "choices": item.choices,
            "grader": grader,
        }
        body = json.dumps(frame).encode()
        self.item = item
        self.deadline = time.monotonic() + time_limit
        try:
            pending = memoryview(LENGTH.pack(len(body)) + body)
            while pending:
                pending = pending[self.requests.write(pending) :]
        except BrokenPipeError:
            return  # it died between two answers: outcome() will see the end of its replies

    def outcome(self) -> Grade | None:
        """The grade of the current answer if there is one: by a reply, a death, or the time limit. Never blocks."""
        while _readable(self.replies):
            chunk = os.read(self.replies.fileno(), 1 << 16)
            if not chunk:
                return self._death()
            self._buffer += chunk
            if (frame := self._frame()) is not None:
                if "ready" not in frame:
                    self.deadline = float("inf")
                    return Grade(**frame)
                self.ready, self.deadline = True, float("inf")
        if time.monotonic() >= self.deadline:
            written = self._standard_error()
            self.kill()
            if not self.ready:
                raise RuntimeError(f"The grader process did not start within {START_LIMIT:.0f} s.{written}")
            return Grade("UNPARSED", None, "timeout: the time limit was reached")
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
        return Grade("UNPARSED", None, f"crash: the grader process ended with status {status}")

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


def _readable(stream: IO[bytes]) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(0))
