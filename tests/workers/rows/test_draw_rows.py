"""The rows of a draw, joined and measured: in any order, repeated, and from several answer contexts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eval.draws import PriorTrace
from orchestrator.store.tables import DRAWS, to_table
from tests.support.builders import make_row
from workers.rows.draw_rows import (
    AnswerText,
    JoinedDraw,
    MeasuredDraw,
    join_rows,
    measure_rows,
    read_texts,
    summarise_rows,
)
from workers.rows.tables import DrawRow

FIRST = make_row((1, 2, 3, 4), (2, 4), limit=4, created_at=1.0, text="first")
MORE = make_row((5, 6), (6,), start=4, limit=8, ended=True, created_at=2.0, text="more")
ANSWER = make_row((), (5,), start=6, limit=8, created_at=3.0, text="answer")
AGAIN = make_row((9, 9, 9), (2, 3), limit=4, created_at=4.0, ended=True, text="again")
OTHER = make_row((), (1, 2), start=4, answer_context="other", created_at=1.5, text="other")


def tabled(rows: Sequence[DrawRow]) -> list[Mapping[str, Any]]:
    """Rows as the store gives them back."""
    return to_table(rows, DRAWS).to_pylist()


def join(*rows: DrawRow, answer_context: str = "answers") -> JoinedDraw:
    joined = join_rows(tabled(rows), answer_context)
    (draw,) = joined.values()
    return draw


def graded(draw: JoinedDraw) -> dict[int, AnswerText]:
    return {cut: AnswerText(answer["text"], answer["forced"]) for cut, answer in draw.answers.items()}


def texts(draw: JoinedDraw) -> dict[int, str]:
    return {cut: answer["text"] for cut, answer in draw.answers.items()}


def test_continuation_is_joined_whatever_the_order_of_rows() -> None:
    draw = join(ANSWER, MORE, FIRST)
    assert draw.trace == PriorTrace((1, 2, 3, 4, 5, 6), ended=True, limit=8)
    assert texts(draw) == {2: "first", 4: "first", 6: "more", 5: "answer"}
    assert draw.created_at == 3.0


def test_repetition_leaves_trace_and_answers_to_the_first_committed() -> None:
    draw = join(AGAIN, FIRST)
    assert draw.trace == PriorTrace((1, 2, 3, 4), ended=False, limit=4)
    assert texts(draw) == {2: "first", 4: "first"}  # cut 3 of the repetition stands on another trace
    assert draw.created_at == 1.0


def test_repetition_that_is_as_long_does_not_take_over_a_continuation() -> None:
    repeated = make_row((7, 7, 7, 7), (4,), created_at=5.0, text="again")
    draw = join(repeated, MORE, FIRST)
    assert draw.trace.token_ids == (1, 2, 3, 4, 5, 6)
    assert texts(draw)[4] == "first"


def test_continuation_without_its_beginning_is_not_a_draw_s_trace() -> None:
    draw = join(MORE)
    assert draw.trace.token_ids == ()
    assert draw.answers == {}


def test_answers_of_another_context_are_not_taken_but_their_trace_is() -> None:
    assert texts(join(FIRST, OTHER)) == {2: "first", 4: "first"}
    theirs = join(FIRST, OTHER, answer_context="other")
    assert theirs.trace.token_ids == (1, 2, 3, 4)
    assert texts(theirs) == {1: "other", 2: "other"}
    assert theirs.created_at == 1.5


def test_answers_of_one_cut_that_come_twice_leave_the_first() -> None:
    late = make_row((), (2,), start=4, created_at=9.0, text="late")
    assert texts(join(late, FIRST))[2] == "first"


def test_empty_trace_that_ended_keeps_its_answers() -> None:
    draw = join(make_row((), (0,), limit=0, created_at=1.0))
    assert (draw.trace.token_ids, set(draw.answers)) == ((), {0})


@given(st.permutations([FIRST, MORE, ANSWER, OTHER, AGAIN]), st.lists(st.integers(0, 4), max_size=4))
def test_any_order_and_repetition_of_rows_is_the_same_draw(order: list[DrawRow], twice: list[int]) -> None:
    rows = [*order, *(order[index] for index in twice)]
    assert join(*rows) == join(FIRST, MORE, ANSWER, OTHER, AGAIN)


@given(st.permutations([make_row(prompt=p, seed=s) for p in ("p0", "p1") for s in (0, 1)]))
def test_draws_of_other_prompts_and_seeds_are_kept_apart(rows: list[DrawRow]) -> None:
    joined = join_rows(tabled(rows), "answers")
    assert set(joined) == {("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)}
    assert {draw.trace.token_ids for draw in joined.values()} == {(1, 2, 3, 4)}


@given(st.lists(st.sampled_from([FIRST, MORE, ANSWER, OTHER, AGAIN]), min_size=1, max_size=7))
def test_measuring_rows_is_joining_and_then_measuring(rows: list[DrawRow]) -> None:
    for answers in ("answers", "other"):
        joined, measured = join_rows(tabled(rows), answers), measure_rows(tabled(rows), answers)
        told = {(*name, cut): text for name, draw in joined.items() for cut, text in graded(draw).items()}
        assert read_texts(tabled(rows), answers) == told
        assert measured == {
            name: MeasuredDraw(len(draw.trace.token_ids), draw.trace.ended, frozenset(draw.answers))
            for name, draw in joined.items()
        }


@given(st.lists(st.sampled_from([FIRST, MORE, ANSWER, OTHER, AGAIN]), min_size=1, max_size=7))
def test_summarising_rows_is_joining_without_tokens(rows: list[DrawRow]) -> None:
    for answers in ("answers", "other"):
        joined, summed = join_rows(tabled(rows), answers), summarise_rows(tabled(rows), answers)
        for name, draw in joined.items():
            one = summed[name]
            assert (one.length, one.ended, one.answers) == (len(draw.trace.token_ids), draw.trace.ended, draw.answers)
            assert one.created_at == draw.created_at


def loop_at(*rows: DrawRow, unknown: Sequence[int] = ()) -> int | None:
    """The loop of a draw whose rows of these numbers were stored before rows had `loop_at`."""
    told = [{**row, "loop_at": None if n in unknown else row["loop_at"]} for n, row in enumerate(tabled(rows))]
    (draw,) = summarise_rows(told, "answers").values()
    return draw.loop_at


def test_last_row_that_knows_says_where_the_trace_begins_to_loop() -> None:
    looping = make_row((5, 6), (6,), start=4, limit=8, created_at=2.0, loop_at=5)
    answer = make_row((), (5,), start=6, limit=8, created_at=3.0, loop_at=5)
    assert loop_at(FIRST) == 0
    assert loop_at(answer, looping, FIRST) == 5
    assert loop_at(answer, looping, FIRST, unknown=[0, 2]) == 5
    assert loop_at(looping, FIRST, unknown=[0]) is None, "its beginning does not loop, and of the rest nobody knows"
    assert loop_at(answer, looping, FIRST, unknown=[1, 2]) == 5, "an answer's row speaks of the whole trace"
    assert loop_at(replace(FIRST, loop_at=3), MORE, unknown=[1]) == 3, "what has looped stays so"
