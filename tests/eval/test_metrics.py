"""Cell metrics: hand-worked tables, brute force, and what counts as missing."""

from itertools import combinations, permutations
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.grading import Grade
from eval.metrics import Outcome, cell_metrics, majority_at_k, pass_at_k, question_means, seed_std


def outcome(
    problem: str, seed: int, correct: bool = True, answer: str = "1", cause: str | None = None, **more
) -> Outcome:
    verdict = "UNPARSED" if cause else "CORRECT" if correct else "INCORRECT"
    return Outcome(problem, seed, Grade(verdict, None if cause else answer, cause), **more)


# Two questions, three seeds: a is right twice, b once.
TABLE = [
    outcome("a", 7, True), outcome("a", 11, True), outcome("a", 42, False, "3"),
    outcome("b", 7, False, "2"), outcome("b", 11, True), outcome("b", 42, False, "02"),
]  # fmt: skip
OWED = [(problem, seed) for problem in "ab" for seed in (7, 11, 42)]


def test_hand_worked_cell():
    cell = cell_metrics(TABLE, OWED)
    assert (cell.questions, cell.draws, cell.missing, cell.ungraded) == (2, 6, 0, 0)
    assert cell.complete
    assert cell.accuracy == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert cell.seed_std == pytest.approx(pstdev([0.5, 1.0, 0.0]))
    assert cell.pass_at == {1: pytest.approx(0.5), 2: pytest.approx((1 + 2 / 3) / 2)}
    # a: right 2, "3" once. b: "2" and "02" are the same number, so they win.
    assert cell.majority == 0.5
    assert cell.interval.low < cell.accuracy < cell.interval.high
    assert cell.pass_at_interval[1] == cell.interval
    assert cell.pass_at_interval[2].low < cell.pass_at[2] < cell.pass_at_interval[2].high
    assert cell.majority_interval.low < 0.5 < cell.majority_interval.high
    assert (cell.if_missing_wrong, cell.if_missing_right) == (cell.accuracy, cell.accuracy)


def test_failures_of_the_grader_are_missing_and_of_the_model_are_wrong():
    outcomes = [
        outcome("a", 7),
        outcome("b", 7, cause="no-answer: none"),
        outcome("c", 7, cause="timeout: late"),
    ]
    cell = cell_metrics(outcomes, [(problem, 7) for problem in "abcd"])
    assert cell.accuracy == 0.5
    assert (cell.missing, cell.ungraded, cell.no_answer_rate) == (1, 1, pytest.approx(1 / 3))
    assert not cell.complete
    assert (cell.if_missing_wrong, cell.if_missing_right) == (0.25, 0.75)


def test_text_that_stops_every_grader_is_wrong_and_counted():
    stops = Grade("INCORRECT", "9^{9^9}", "timeout: 10 s", "box")
    cell = cell_metrics([outcome("a", 7), Outcome("b", 7, stops), outcome("c", 7, False)], [(p, 7) for p in "abc"])
    assert cell.accuracy == pytest.approx(1 / 3)
    assert (cell.defeated_grader, cell.ungraded, cell.no_answer_rate, cell.complete) == (1, 0, 0, True)


def test_a_missing_draw_is_not_a_wrong_one_and_withholds_the_seed_std():
    cell = cell_metrics(TABLE[:-1], OWED)
    assert cell.accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert cell.seed_std is None
    assert cell.missing == 1
    assert cell.pass_at[2] == pytest.approx((1 + 1) / 2)
    assert (cell.if_missing_wrong, cell.if_missing_right) == (pytest.approx(0.5), pytest.approx(2 / 3))


def test_an_empty_cell_has_no_accuracy():
    cell = cell_metrics([], OWED)
    assert (cell.accuracy, cell.interval, cell.majority, cell.thinking_tokens) == (None, None, None, None)
    assert (cell.missing, cell.complete) == (6, False)
    assert (cell.if_missing_wrong, cell.if_missing_right) == (0.0, 1.0)


def test_rates_and_tokens():
    outcomes = [
        outcome("a", 1, thinking_tokens=10, answer_tokens=1, forced=True),
        outcome("b", 1, thinking_tokens=20, answer_tokens=3, cap_hit=True, looped=True),
        outcome("c", 1, thinking_tokens=60, answer_tokens=2, reopened_thinking=True),
        outcome("d", 1, thinking_tokens=30, answer_tokens=2),
    ]
    cell = cell_metrics(outcomes, [(problem, 1) for problem in "abcd"])
    assert (cell.thinking_tokens.mean, cell.thinking_tokens.median, cell.thinking_tokens.maximum) == (
        30,
        25,
        60,
    )
    assert (cell.answer_tokens.mean, cell.answer_tokens.maximum) == (2, 3)
    rates = (cell.forced_rate, cell.cap_hit_rate, cell.loop_rate, cell.reopened_rate, cell.no_answer_rate)
    assert rates == (0.25, 0.25, 0.25, 0.25, 0.0)


@pytest.mark.parametrize(
    ("outcomes", "complaint"),
    [
        ([TABLE[0], TABLE[0]], "is present 2 times"),
        ([outcome("z", 7)], "problem 'z', seed 7: this draw was not asked for"),
    ],
)
def test_draws_that_do_not_belong_are_refused(outcomes, complaint):
    with pytest.raises(ValueError, match=complaint):
        cell_metrics(outcomes, OWED)


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_brute_force(case):
    draws, correct, k = case
    flags = [True] * correct + [False] * (draws - correct)
    assert pass_at_k(draws, correct, k) == pytest.approx(mean(any(pick) for pick in combinations(flags, k)))


@pytest.mark.parametrize("case", [(3, 1, 0), (3, 1, 4), (3, 4, 1)])
def test_pass_at_k_refuses_nonsense(case):
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(*case)


@given(st.lists(st.sampled_from(["right", "x", "y", None]), min_size=1, max_size=6))
def test_majority_equals_breaking_ties_by_lot(answers):
    outcomes = [
        outcome("a", seed, answer == "right", answer or "", cause=None if answer else "no-answer: none")
        for seed, answer in enumerate(answers)
    ]
    cast = [answer for answer in answers if answer]
    wins = [max(order, key=order.count) == "right" for order in permutations(cast)] if cast else [False]
    assert majority_at_k(outcomes) == pytest.approx(mean(wins))


def test_seed_std_needs_two_seeds():
    assert seed_std([outcome("a", 1)], [("a", 1)]) is None
    assert question_means(TABLE) == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}
