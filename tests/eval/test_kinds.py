"""Kinds of question: how a gold is normalized and an answer found, kind by kind."""

from typing import get_args

import pytest

from eval.kinds import KINDS, Kind


def test_every_kind_has_its_row():
    assert set(get_args(Kind)) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "gold", "stored"),
    [("math", "025", "025"), ("integer", "025", "25"), ("integer", "336^\\circ", "336"), ("choice", "B", "B")],
)
def test_only_whole_numbers_are_normalized(kind, gold, stored):
    assert KINDS[kind].normalize_gold(gold) == stored


def test_a_gold_that_is_no_whole_number_is_refused():
    with pytest.raises(ValueError, match="'1/2' is not a whole number"):
        KINDS["integer"].normalize_gold("1/2")


@pytest.mark.parametrize("kind", ["math", "integer"])
def test_expressions_are_compared_by_the_grader_and_letters_are_not(kind):
    assert KINDS[kind].extract("so \\boxed{7}", "", ()) == ("7", "box")
    assert KINDS[kind].equal is None
    choice = KINDS["choice"]
    assert choice.extract("so \\boxed{B}", "", ("x", "y")) == ("B", "box")
    assert choice.equal is not None
    assert choice.equal("B", "B")
    assert not choice.equal("A", "B")
