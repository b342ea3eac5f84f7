"""The grader pool: order, speed, and what happens to answers and processes when a grader hangs or dies."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eval.grader_pool import GraderPool
from eval.grading import Grade, GradeItem
from tests.support import ROOT

HANGS = GradeItem("\\boxed{10^{10^{10^{10}}}}", "5")
FINE = GradeItem("\\boxed{\\frac{2}{4}}", "0.5")


def children_of(process: int) -> set[int]:
    """Living child processes, from /proc."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def processor_ticks(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_hang_costs_its_answer_alone_and_order_is_kept():
    with GraderPool(workers=2, time_limit=1.5) as pool:
        grades = pool.grade_many([FINE, HANGS, FINE, GradeItem("\\boxed{3}", "4")])
    assert [grade.verdict for grade in grades] == ["CORRECT", "UNPARSED", "CORRECT", "INCORRECT"]
    assert grades[1].cause == "timeout: the time limit was reached"
    assert grades[1].grader_failed


def test_an_answer_that_exceeds_the_memory_limit_costs_itself_alone():
    with GraderPool(workers=1, time_limit=30, memory_limit=256 << 20) as pool:
        (grade, after) = pool.grade_many([GradeItem("x" * (100 << 20), "5"), FINE])
    assert grade.verdict == "UNPARSED"
    assert grade.cause.split(":")[0] in ("memory", "crash")
    assert after.verdict == "CORRECT"


def test_a_grader_killed_at_work_costs_one_answer_and_killed_idle_none():
    others = children_of(os.getpid())  # of other tests in this process
    with GraderPool(workers=1, time_limit=60) as pool:
        before = children_of(os.getpid()) - others
        assert pool.grade_many([FINE])[0].verdict == "CORRECT"
        (child,) = before
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert pool.grade_many([GradeItem("\\boxed{7}", "7")])[0].verdict == "CORRECT"

        (child,) = children_of(os.getpid()) - others
        results: list[Grade] = []
        worker = threading.Thread(target=lambda: results.extend(pool.grade_many([HANGS, FINE])))
        worker.start()
        idle = processor_ticks(child)
        while processor_ticks(child) < idle + 20:  # until it is at work on the answer that hangs
            pass
        os.kill(child, signal.SIGKILL)
        worker.join(timeout=60)
    assert results[0] == Grade("UNPARSED", None, "crash: the grader process ended with status -9")
    assert results[1].verdict == "CORRECT"


def test_identical_items_are_graded_once():
    began = time.monotonic()
    with GraderPool(workers=1, time_limit=1.0) as pool:
        grades = pool.grade_many([HANGS] * 50)
    assert len(grades) == 50
    assert len(set(grades)) == 1
    assert time.monotonic() - began < 30  # 50 hangs would take 50 s and 50 restarts


def test_a_thousand_answers_in_under_twenty_seconds():
    items = [GradeItem(f"so it is \\boxed{{\\frac{{{i}}}{{{i + 1}}}}}", f"{i}/{i + 1}") for i in range(200)]
    items += [GradeItem(f"\\boxed{{x^2 + {i}x}}", f"x(x+{i})") for i in range(100)]
    items += [GradeItem(f"The answer is ${i}\\sqrt{{2}}$.", f"\\sqrt{{{2 * i * i}}}") for i in range(100)]
    items += [GradeItem(f"\\boxed{{0{i}}}", str(i)) for i in range(500)]
    items += [GradeItem(f"\\boxed{{({i}, {i + 1}]}}", f"({i},{i + 1}]") for i in range(100)]
    with GraderPool(workers=2) as pool:
        pool.grade_many([FINE])
        began = time.monotonic()
        grades = pool.grade_many(items)
        took = time.monotonic() - began
    assert [grade.verdict for grade in grades] == ["CORRECT"] * 1000
    assert took < 20


def test_nothing_is_left_behind():
    before = children_of(os.getpid())
    pool = GraderPool(workers=2)
    assert len(children_of(os.getpid()) - before) == 2
    pool.grade_many([FINE])
    pool.close()
    pool.close()
    assert children_of(os.getpid()) == before
    with pytest.raises(RuntimeError, match="closed"):
        pool.grade_many([FINE])


def test_a_forgotten_pool_takes_its_children_along():
    before = children_of(os.getpid())
    pool = GraderPool(workers=1)
    del pool
    assert children_of(os.getpid()) == before


def test_children_end_when_their_parent_is_killed():
    code = (
        "import os, signal\n"
        "from eval.grader_pool import GraderPool\n"
        "from eval.grading import GradeItem\n"
        "pool = GraderPool(workers=1)\n"
        "pool.grade_many([GradeItem('1', '1')])\n"
        "print(pool._children[0].process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == -signal.SIGKILL
    try:
        handle = os.pidfd_open(int(result.stdout))
    except ProcessLookupError:
        return  # gone already
    ended, _, _ = select.select([handle], [], [], 30)
    os.close(handle)
    assert ended, "the orphaned grader is still alive"


def grade_one(verdicts):
    with GraderPool(workers=1) as pool:
        verdicts.put(pool.grade_many([FINE])[0].verdict)


def test_works_in_a_thread_of_a_daemonic_process():
    context = multiprocessing.get_context("spawn")
    verdicts = context.Queue()
    process = context.Process(target=in_a_thread, args=(verdicts,), daemon=True)
    process.start()
    assert verdicts.get(timeout=60) == "CORRECT"
    process.join(timeout=30)


def in_a_thread(verdicts):
    thread = threading.Thread(target=grade_one, args=(verdicts,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("setting", [{"workers": 0}, {"time_limit": 0}, {"memory_limit": 1}])
def test_impossible_pools_are_refused(setting):
    with pytest.raises(ValueError, match="at least one worker"):
        GraderPool(**setting)
