"""Verdicts, all from caged children: the adversarial table, hostile text, and the registry."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.grader_pool import GraderPool
from eval.grading import GRADERS, Grade, GradeItem, check_grader, grade, newest_before, settle
from tests.support import ROOT
from tests.support.answer_cases import CHOICE_CASES, CHOICES, HOSTILE, MATH_CASES


@pytest.fixture(scope="module")
def pool():
    with GraderPool(workers=2) as pool:
        yield pool


def test_no_wrong_verdict_on_the_adversarial_table(pool):
    grades = pool.grade_many([GradeItem(text, gold) for text, gold, _ in MATH_CASES])
    wrong = [(case, grade) for case, grade in zip(MATH_CASES, grades, strict=True) if grade.verdict != case[2]]
    assert wrong == []


def test_public_cases_and_ours_have_the_right_verdict():
    """Collected from public reports and by hand: text, gold, kind, and the verdict that is right. The few that are
    disputable are decided in docs/evaluation.md."""
    rows = [json.loads(line) for line in (ROOT / "tests/data/grading_cases.jsonl").read_text("utf-8").splitlines()]
    items = [
        GradeItem(row["text"], row["gold"], row["kind"], tuple(row.get("choices", ())), row.get("cue", ""))
        for row in rows
    ]
    with GraderPool(workers=2, time_limit=3) as pool:
        verdicts = [grade.verdict for grade in pool.grade_many(items)]
    wrong = [
        (row, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
        if (verdict == "CORRECT" if row["right"] == "NOT_CORRECT" else verdict != row["right"])
    ]
    assert wrong == []


def test_every_gold_equals_itself_and_not_its_neighbour(pool):
    golds = sorted({gold for _, gold, verdict in MATH_CASES if verdict == "CORRECT"})
    grades = pool.grade_many([GradeItem(f"\\boxed{{{gold}}}", gold) for gold in golds])
    assert {grade.verdict for grade in grades} == {"CORRECT"}
    grades = pool.grade_many([GradeItem(f"\\boxed{{{gold}+1}}", gold) for gold in golds if gold.isdigit()])
    assert {grade.verdict for grade in grades} == {"INCORRECT"}


def test_choices_are_compared_by_letter(pool):
    picked = [(text, letter) for text, letter in CHOICE_CASES if letter is not None]
    right = pool.grade_many([GradeItem(text, letter, "choice", CHOICES) for text, letter in picked])
    assert {grade.verdict for grade in right} == {"CORRECT"}
    none = [GradeItem(text, "A", "choice", CHOICES) for text, letter in CHOICE_CASES if letter is None]
    assert {grade.cause.split(":")[0] for grade in pool.grade_many(none)} == {"no-answer"}


def test_hostile_text_is_neither_run_nor_fatal(pool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grades = pool.grade_many([GradeItem(text, "5") for text in HOSTILE])
    assert all(grade.verdict != "CORRECT" for grade in grades)
    assert list(tmp_path.iterdir()) == []
    assert not (ROOT / "PWNED").exists()
    (after,) = pool.grade_many([GradeItem("\\boxed{5}", "5.0")])
    assert after.verdict == "CORRECT"


def test_the_exact_grader_compares_text(pool):
    items = [GradeItem("\\boxed{\\dfrac{1}{2}}", "\\frac{1}{2}"), GradeItem("\\boxed{0.5}", "\\frac{1}{2}")]
    assert [grade.verdict for grade in pool.grade_many(items, "exact")] == ["CORRECT", "INCORRECT"]


def test_graders_carry_a_version_and_unknown_ones_are_refused(pool):
    assert GRADERS["standard"].version.startswith("3+math-verify-0.9")
    with pytest.raises(ValueError, match=r"grader 'standrad' is unknown.*Did you mean 'standard'"):
        check_grader("standrad")
    with pytest.raises(ValueError, match="unknown"):
        pool.grade_many([], "nope")


@pytest.mark.parametrize(
    ("grade", "failed"),
    [
        (Grade("CORRECT", "1"), False),
        (Grade("UNPARSED", None, "no-answer: nothing"), False),
        (Grade("UNPARSED", None, "timeout: late"), True),
        (Grade("UNPARSED", None, "crash: status 9"), True),
        (Grade("UNPARSED", None, "killed: SIGKILL"), True),
        (Grade("INCORRECT", None, "timeout: 10 s"), False),
    ],
)
def test_who_is_to_blame(grade, failed):
    assert grade.grader_failed is failed


RIGHT = Grade("CORRECT", "5", rule="box")
TEXTS = [
    Grade("UNPARSED", "9^9", f"{cause}: why", "box") for cause in ("timeout", "memory", "crash", "error", "blocked")
]
OURS = [Grade("UNPARSED", None, f"{cause}: why") for cause in ("killed", "stalled", "machine")]


@given(st.lists(st.sampled_from([*TEXTS, *OURS]), min_size=1, max_size=3))
def test_what_fails_is_tried_until_it_failed_twice_on_one_side(tries):
    texts, ours = [t for t in tries if t in TEXTS], [t for t in tries if t in OURS]
    settled = settle(tries)
    if len(texts) >= 2:
        assert settled == replace(texts[-1], verdict="INCORRECT")
        assert settled.defeated_grader
    elif len(ours) >= 2:
        assert settled == ours[-1]
        assert settled.grader_failed
    else:
        assert settled is None


@given(
    st.lists(st.sampled_from([*TEXTS, *OURS]), max_size=2),
    st.sampled_from([RIGHT, Grade("UNPARSED", None, "no-answer: none")]),
)
def test_a_verdict_settles_it_whatever_was_before(tries, verdict):
    assert settle([*tries, verdict]) == verdict


def test_the_version_before_is_the_newest_of_the_same_grader():
    stored = {"standard@1+sympy-1.9", "standard@1+sympy-1.14", "standard@2+sympy-1.14", "standard@3", "exact@1"}
    assert newest_before("standard@2+sympy-1.14", stored) == "standard@1+sympy-1.14"
    assert newest_before("exact@1", stored) is None


@pytest.mark.parametrize(
    ("grade", "line"),
    [
        (Grade("CORRECT", "4", rule="box"), "CORRECT 4 (box)"),
        (Grade("UNPARSED", None, "no-answer: none"), "UNPARSED [no-answer: none]"),
        (Grade("INCORRECT", "a\n\x1b[2J\ud83d", "timeout: 1 s"), r"INCORRECT a\n\x1b[2J\ud83d [timeout: 1 s]"),
    ],
)
def test_grade_in_one_line(grade, line):
    assert grade.spelled() == line


def test_long_extraction_is_cut_in_the_line():
    assert Grade("CORRECT", "1" * 2000).spelled() == f"CORRECT {'1' * 77}..."


@pytest.mark.parametrize(
    ("text", "cue", "verdict"),
    [
        (" 7 * 4, which is a difficult task.", "The final answer is", "INCORRECT"),
        (" 7 * 4 = 28.", "The final answer is", "CORRECT"),
        (" 28.", "The final answer is", "CORRECT"),
        ("7 * 4", "", "INCORRECT"),
        ("\\boxed{7 \\times 4}", "", "CORRECT"),
    ],
)
def test_a_question_that_is_repeated_is_no_answer(text: str, cue: str, verdict: str) -> None:
    assert grade(GradeItem(text, "28", cue=cue)).verdict == verdict
