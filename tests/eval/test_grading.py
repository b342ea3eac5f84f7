"""Verdicts, all from caged children: the adversarial table, hostile text, and the registry."""

import pytest

from eval.grader_pool import GraderPool
from eval.grading import GRADERS, Grade, GradeItem, check_grader
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
    assert GRADERS["standard"].version.startswith("2+math-verify-0.9")
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
    ],
)
def test_who_is_to_blame(grade, failed):
    assert grade.grader_failed is failed
