"""The grading process: `python -m eval.grader_child TIME_LIMIT MEMORY_LIMIT`, one per worker of `eval.grader_pool`.

It reads frames (4 bytes of length, big-endian, then JSON) from standard input and writes them to the original standard
output: what was found in a text as soon as it is found, then the grade. Before it reads any model text, it gives up
what grading does not need: memory beyond the limit, files, processes, sockets, and running text as code. A timer of
processor time, set anew for each answer, ends it even if its parent is gone. A process that waits for a processor is
not ended, so a busy machine costs no grade.
"""

import errno
import io
import json
import logging
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from types import FrameType
from typing import Any, BinaryIO

from eval.equality.same_value import same_value
from eval.extraction.found import LONGEST_EXPRESSION, Found
from eval.grading import Grade, GradeItem, find, judge

LENGTH = struct.Struct(">I")
OUT_OF_TIME = signal.SIGPROF
"""The signal that ends this process when an answer has used up its processor time."""
OUT_OF_MEMORY = 77
"""The exit status where even the request, or the grade, did not fit into memory."""
FORBIDDEN_EVENTS = (
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "ctypes.",
    "pty.",
    "webbrowser.",
    "ftplib.",
    "http.",
)

# sympy's polynomials compile their exponent arithmetic from templates that vary only in the number of variables.
CODE_GENERATORS = frozenset({"sympy.polys.monomials"})
# One comparison of each sort, which imports what it needs before the audit hook is installed.
WARM_UP = (
    (r"\frac{1}{2}", r"x^{2} + \sqrt{2}"),
    ("(x+1)^2", "x^2+2x+2"),
    (r"\{1, 2\}", "1,3"),
    ("[1,2)", r"(-\infty,3)"),
    ("x<3", "x>3"),
    (r"\begin{pmatrix}1\end{pmatrix}", r"\begin{pmatrix}2\end{pmatrix}"),
)


class CageError(Exception):
    """Grading tried something that it never needs."""


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next frame, or None at the end of the stream."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    frame: dict[str, Any] = json.loads(stream.read(LENGTH.unpack(head)[0]))
    return frame


def write_frame(stream: BinaryIO, frame: dict[str, Any]) -> None:
    """Write one frame and flush it."""
    body = json.dumps(frame).encode()
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _read_numerals_without_eval() -> None:
    """Replace sympy's `parse_expr`, which is Python's `eval`, by a reader of numerals.

    Math-verify's LaTeX grammar passes numerals, and by design nothing else, to sympy as strings, which `sympify` would
    run as code. Other strings raise the error that sympy expects. Strings that sympy's own modules parse while they are
    being imported are not model text, and are parsed as before.
    """
    from sympy import Float, Integer
    from sympy.parsing import sympy_parser

    run_as_code = sympy_parser.parse_expr

    def parse_numeral(text: str, *args: Any, **kwargs: Any) -> Any:
        if _importing(sys._getframe(1)):
            return run_as_code(text, *args, **kwargs)
        if re.fullmatch(r"\s*[0-9]+\s*", text):
            return Integer(text.strip())
        if re.fullmatch(r"\s*(?:[0-9]+\.[0-9]*|\.[0-9]+)\s*", text):
            return Float(text.strip())
        raise SyntaxError(f"{text[:80]!r} is not a numeral, and text is not run as code")

    sympy_parser.parse_expr = parse_numeral


class Cage:
    """An audit hook (PEP 578), which Python code cannot remove. `breach` is the first event that it refused, or None.

    sympy turns text into code in more places than `parse_expr`, such as `lambdify`. If an answer ever leads there, the
    event is refused and the grade has the cause "blocked".
    """

    def __init__(self) -> None:
        self.breach: str | None = None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        code = event in ("compile", "exec")
        writing = event == "open" and isinstance(args[1], str) and any(flag in args[1] for flag in "wax+")
        if not code and not writing and not event.startswith(FORBIDDEN_EVENTS):
            return
        # The importer compiles and runs the modules that sympy loads on first use, and lists their folders.
        caller = sys._getframe(1)
        if _importing(caller) or (code and caller.f_globals.get("__name__") in CODE_GENERATORS):
            return
        self.breach = self.breach or event
        raise CageError(f"{event} is not allowed while grading")


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _answer(item: GradeItem, grader: str, memory_limit: int, say_found: Callable[[Found], None]) -> Grade:
    """The grade of one answer, without regard to what the cage refused."""
    found: Found | None = None
    before = _peak_bytes()
    try:
        found = find(item)
        if found is not None:
            say_found(found)
        result = judge(item, found, grader)
    except MemoryError:
        return _failed(found, "memory: the limit was reached")
    except (OSError, ImportError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM or _peak_bytes() - before > memory_limit // 4:
            return _failed(found, "memory: the limit was reached")
        # No text opens a file or imports a module: these are our machine's, such as a library folder out of reach.
        return _failed(found, f"machine: {type(error).__name__}: {str(error)[:200]}")
    except Exception as error:
        # sympy may raise anything on odd input. The cause is recorded in the grade.
        return _failed(found, f"error: {type(error).__name__}: {str(error)[:200]}")
    # Math-verify swallows MemoryError and says "not equal"; only the peak of memory shows that it happened.
    if result.verdict == "INCORRECT" and _peak_bytes() - before > memory_limit // 4:
        return _failed(found, "memory: most of the limit was used up")
    return result


def _failed(found: Found | None, cause: str) -> Grade:
    expression, rule = found or (None, None)
    return Grade("UNPARSED", expression and expression[:LONGEST_EXPRESSION], cause, rule)


def main(time_limit: float, memory_limit: int) -> None:
    """Serve until standard input ends. `time_limit`: processor seconds per answer; `memory_limit`: bytes of address
    space."""
    requests = io.BufferedReader(io.FileIO(0, closefd=False))
    # Libraries print grammar warnings, which must not get between frames.
    replies = io.BufferedWriter(io.FileIO(os.dup(1), "w"))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a Ctrl-C ends us
    signal.signal(OUT_OF_TIME, signal.SIG_DFL)  # it ends the process, also in the middle of a long multiplication
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {OUT_OF_TIME})
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for gold, other in WARM_UP:
        same_value(gold, other)
    _read_numerals_without_eval()
    cage = Cage()
    sys.addaudithook(cage)
    write_frame(replies, {"ready": True})

    def say_found(found: Found) -> None:
        write_frame(replies, {"found": [found.expression[:LONGEST_EXPRESSION], found.rule]})

    try:
        while (request := read_frame(requests)) is not None:
            signal.setitimer(signal.ITIMER_PROF, time_limit)
            grader = request.pop("grader")
            item = GradeItem(**request | {"choices": tuple(request["choices"])})
            cage.breach = None
            result = _answer(item, grader, memory_limit, say_found)
            if cage.breach is not None:
                result = replace(result, verdict="UNPARSED", cause=f"blocked: {cage.breach}")
            signal.setitimer(signal.ITIMER_PROF, 0)
            write_frame(replies, asdict(result))
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
