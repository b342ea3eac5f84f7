"""The grader pool: order, speed, and what happens to answers and processes when a grader hangs or dies."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eval.grader_pool import GraderPool
from eval.grading import Grade, GradeItem
from tests.support import ROOT

HANGS = GradeItem("\\boxed{\\sum_{n=1}^{10^9} \\frac{1}{n}}", "5")
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


@contextmanager
def new_children() -> Iterator[Callable[[], set[int]]]:
    """A function that gives the children begun since, without those of other tests in this process."""
    others = children_of(os.getpid())
    yield lambda: children_of(os.getpid()) - others


def test_text_that_hangs_is_wrong_with_its_cause_and_order_is_kept():
    with GraderPool(workers=2, time_limit=1.5) as pool:
        grades = pool.grade_many([FINE, HANGS, FINE, GradeItem("\\boxed{3}", "4")])
    assert [grade.verdict for grade in grades] == ["CORRECT", "INCORRECT", "CORRECT", "INCORRECT"]
    assert grades[1].cause == "timeout: 1.5 s of processor time were used up"
    assert grades[1].extracted == r"\sum_{n=1}^{10^9} \frac{1}{n}"
    assert grades[1].rule == grades[0].rule
    assert (grades[1].defeated_grader, grades[1].grader_failed) == (True, False)
    assert not grades[3].defeated_grader


def test_text_that_exceeds_the_memory_limit_is_wrong_with_its_cause():
    with GraderPool(workers=1, time_limit=30, memory_limit=256 << 20) as pool:
        (grade, after) = pool.grade_many([GradeItem("x" * (100 << 20), "5"), FINE])
    assert grade == Grade("INCORRECT", None, "memory: the limit was reached")
    assert after.verdict == "CORRECT"


def test_a_grader_killed_idle_costs_nothing():
    with new_children() as children, GraderPool(workers=1, time_limit=60) as pool:
        assert pool.grade_many([FINE])[0].verdict == "CORRECT"
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert pool.grade_many([GradeItem("\\boxed{7}", "7")])[0].verdict == "CORRECT"


def test_a_grader_killed_at_work_twice_leaves_its_answer_missing_and_no_other():
    with GraderPool(workers=1, time_limit=120) as pool:
        results: list[Grade] = []
        worker = threading.Thread(target=lambda: results.extend(pool.grade_many([HANGS, FINE])))
        worker.start()
        killed: set[int] = set()
        while len(killed) < 2:
            (child,) = pool._children
            if child.item == HANGS and child.process.pid not in killed:
                killed.add(child.process.pid)
                os.kill(child.process.pid, signal.SIGKILL)
        worker.join(timeout=60)
    assert results[0].cause == "killed: the grader process was ended by SIGKILL"
    assert (results[0].verdict, results[0].grader_failed) == ("UNPARSED", True), "no text kills from outside"
    assert results[1].verdict == "CORRECT"


def test_a_grader_without_a_processor_is_waited_for_beyond_the_time_limit():
    with new_children() as children, GraderPool(workers=1, time_limit=0.5) as pool:
        pool.grade_many([FINE])
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (child, signal.SIGCONT)).start()
        assert pool.grade_many([GradeItem("\\boxed{7}", "7")])[0].verdict == "CORRECT"
        assert children() == {child}


def test_a_grader_that_stays_without_a_processor_is_replaced_and_its_answer_graded():
    with new_children() as children, GraderPool(workers=1, time_limit=5, patience=0.1) as pool:
        pool.grade_many([FINE])
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        assert pool.grade_many([GradeItem("\\boxed{7}", "7")])[0].verdict == "CORRECT"
        assert child not in children()


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
