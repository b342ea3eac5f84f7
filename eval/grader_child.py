"""The grading process: `python -m eval.grader_child TIME_LIMIT MEMORY_LIMIT`, one per worker of `eval.grader_pool`.

It reads frames (4 bytes of length, big-endian, then JSON) from standard input and writes them to the original standard
output. Before it reads any model text, it gives up what grading does not need: memory beyond the limit, files,
processes, sockets, and running text as code. A limit on processor time, renewed for each answer, ends it even if its
parent is gone.
"""

import io
import json
import logging
import math
import os
import re
import resource
import signal
import struct
import sys
from types import FrameType
from typing import Any, BinaryIO

from eval.equality.same_value import same_value
from eval.grading import Grade, GradeItem, grade

LENGTH = struct.Struct(">I")
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
    event is refused and the answer is UNPARSED with the cause "blocked".
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


def _limit_processor_time(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(
        resource.RLIMIT_CPU,
        (math.ceil(used.ru_utime + used.ru_stime + seconds) + 1, resource.RLIM_INFINITY),
    )


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _answer(item: GradeItem, grader: str, cage: Cage, memory_limit: int) -> Grade:
    cage.breach = None
    before = _peak_bytes()
    try:
        result = grade(item, grader)
    except MemoryError:
        return Grade("UNPARSED", None, "memory: the limit was reached")
    except Exception as error:
        # sympy may raise anything on odd input. The cause is recorded in the grade.
        return Grade("UNPARSED", None, f"error: {type(error).__name__}: {str(error)[:200]}")
    if cage.breach is not None:
        return Grade("UNPARSED", result.extracted, f"blocked: {cage.breach}")
    # Math-verify swallows MemoryError and says "not equal"; only the peak of memory shows that it happened.
    if result.verdict == "INCORRECT" and _peak_bytes() - before > memory_limit // 4:
        return Grade("UNPARSED", result.extracted, "memory: most of the limit was used up")
    return result


def main(time_limit: float, memory_limit: int) -> None:
    """Serve until standard input ends. `time_limit`: seconds per answer; `memory_limit`: bytes of address space."""
    requests = io.BufferedReader(io.FileIO(0, closefd=False))
    # Libraries print grammar warnings, which must not get between frames.
    replies = io.BufferedWriter(io.FileIO(os.dup(1), "w"))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a Ctrl-C ends us
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for gold, other in WARM_UP:
        same_value(gold, other)
    _read_numerals_without_eval()
    cage = Cage()
    sys.addaudithook(cage)
    write_frame(replies, {"ready": True})
    while (request := read_frame(requests)) is not None:
        _limit_processor_time(time_limit)
        item = GradeItem(request["text"], request["gold"], request["kind"], tuple(request["choices"]))
        result = _answer(item, request["grader"], cage, memory_limit)
        write_frame(replies, {"verdict": result.verdict, "extracted": result.extracted, "cause": result.cause})


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
