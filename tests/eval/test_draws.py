"""Which limits a stored draw serves, and with which answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.draws import answer_for, unserved_limits

ANSWERS = {2: "at 2", 5: "at 5"}


@pytest.mark.parametrize(
    ("limit", "length", "ended", "answer"),
    [
        (2, 5, False, "at 2"),
        (5, 5, False, "at 5"),
        (9, 5, True, "at 5"),
        (9, 5, False, None),
        (3, 5, True, None),
        (9, 4, True, None),
    ],
    ids=["below", "exact", "beyond its natural end", "beyond a cut trace", "no answer there", "no answer at its end"],
)
def test_answer_is_the_one_at_the_cut_of_the_limit(limit, length, ended, answer):
    assert answer_for(limit, length, ended, ANSWERS) == answer


def test_unserved_limits_keep_their_order():
    assert unserved_limits(5, False, {2, 5}, (9, 2, 3, 5)) == (9, 3)
    assert unserved_limits(5, True, {2, 5}, (9, 2, 3, 5)) == (3,)


@given(st.integers(0, 9), st.booleans(), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 12)).map(tuple))
def test_a_limit_is_unserved_exactly_if_it_has_no_answer(length, ended, cuts, limits):
    answers = dict.fromkeys(cuts, "answer")
    missing = tuple(limit for limit in limits if answer_for(limit, length, ended, answers) is None)
    assert unserved_limits(length, ended, cuts, limits) == missing
