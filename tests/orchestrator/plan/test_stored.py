"""What the store's rows say of a draw, and what a plan then still owes: answer by answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.draws import PriorTrace
from orchestrator.plan.stored import read_draws, still_owed
from orchestrator.store.store import Store
from orchestrator.store.tables import DRAWS, to_table
from tests.support.builders import TinySweep, make_item, make_row
from workers.draw_rows import JoinedDraw, MeasuredDraw, join_rows, measure_rows, read_texts
from workers.tables import DrawRow

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


def test_lost_worker_s_draws_are_owed_unless_every_limit_is_answered(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    whole = make_row(prompt="whole", cuts=(2, 4), limit=4)
    part = make_row(prompt="part", cuts=(2,), limit=4)
    short = make_row(prompt="short", cuts=(2, 4), limit=4)
    store.commit_draws([whole, part, short])
    limits = {"whole": (2, 4), "part": (2, 4), "short": (4, 8), "none": (2, 4)}
    items = [make_item(prompt, limits=asked, number=n) for n, (prompt, asked) in enumerate(limits.items())]
    assert still_owed(store, "c", "answers", items) == {1, 2, 3}


def test_draws_are_measured_with_the_cuts_that_are_answered(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for row in (MORE, FIRST):
        store.commit_draws([row])
    assert read_draws(store, "c", "answers") == {("p0", 0): MeasuredDraw(6, True, frozenset({2, 4, 6}))}


@given(st.lists(st.sampled_from([FIRST, MORE, ANSWER, OTHER, AGAIN]), min_size=1, max_size=7))
def test_measuring_rows_is_joining_and_then_measuring(rows: list[DrawRow]) -> None:
    for answers in ("answers", "other"):
        joined, measured = join_rows(tabled(rows), answers), measure_rows(tabled(rows), answers)
        told = {(*name, cut): text for name, draw in joined.items() for cut, text in texts(draw).items()}
        assert read_texts(tabled(rows), answers) == told
        assert measured == {
            name: MeasuredDraw(len(draw.trace.token_ids), draw.trace.ended, frozenset(draw.answers))
            for name, draw in joined.items()
        }


# --- what an edited grid owes ---------------------------------------------------------------------------


def hold(sweep: TinySweep, trace_length: int, *, ended: bool) -> None:
    """Commit a row for every draw of the sweep as it stands, answered at all of its limits."""
    (variant,) = sweep.resolve_grid().variants
    (decoding,) = variant.decodings
    cuts = sorted({min(limit, trace_length) for limit in sweep.limits})
    rows = []
    for question in variant.questions:
        for seed in sweep.seeds:
            row = make_row(range(trace_length), cuts, limit=max(sweep.limits), ended=ended, seed=seed)
            names = {
                "context_id": decoding.context.context_id,
                "answer_context_id": decoding.context.answer_context_id,
                "prompt_id": question.gold.prompt_id,
            }
            rows.append(DrawRow(**(vars(row) | names)))
    sweep.store.commit_draws(rows)


def owed(sweep: TinySweep) -> dict[tuple[str, int], tuple[tuple[int, ...], int | None]]:
    """(problem, seed) -> the limits owed, and of how many stored tokens the draw goes on."""
    (context,) = sweep.plan().contexts
    held = context.held_tokens()
    items = context.items(context.numbers)
    assert all((item.number in held) == item.continues for item in items)
    return {(i.job.problem_id, i.job.seed): (i.job.limits, held.get(i.number)) for i in items}


@pytest.fixture
def held(sweep: TinySweep) -> TinySweep:
    """Every draw is stored, cut at limit 32."""
    hold(sweep, 32, ended=False)
    assert owed(sweep) == {}
    assert sweep.plan().draws_held == 8
    return sweep


def test_smaller_limit_added_owes_only_its_answers_on_the_stored_trace(held: TinySweep) -> None:
    held.limits = (4, 8, 32)
    found = owed(held)
    assert len(found) == 8
    assert {limits for limits, _ in found.values()} == {(4,)}
    assert {tokens for _, tokens in found.values()} == {32}
    assert held.plan().contexts[0].new_tokens == 0


def test_larger_limit_added_owes_only_the_extension(held: TinySweep) -> None:
    held.limits = (8, 32, 48)
    assert {limits for limits, _ in owed(held).values()} == {(48,)}
    assert held.plan().contexts[0].new_tokens == 8 * (48 - 32)


def test_trace_that_ended_owes_nothing_for_a_larger_limit(sweep: TinySweep) -> None:
    hold(sweep, 20, ended=True)
    sweep.limits = (8, 32, 48)
    assert owed(sweep) == {}


def test_trace_that_ended_owes_the_answer_at_a_cut_below_its_end(sweep: TinySweep) -> None:
    hold(sweep, 20, ended=True)
    sweep.limits = (8, 16, 24, 48)
    assert {limits for limits, _ in owed(sweep).values()} == {(16,)}


def test_seed_added_owes_only_that_seed(held: TinySweep) -> None:
    held.seeds = (0, 1, 5)
    assert {seed for _, seed in owed(held)} == {5}
    assert len(owed(held)) == 4


def test_problems_added_are_owed_and_those_in_two_benchmarks_once(held: TinySweep) -> None:
    held.benchmarks["second"] = range(2, 6)
    assert {problem for problem, _ in owed(held)} == {"mixed-004", "mixed-005"}
    held.benchmarks["third"] = range(4, 6)
    assert held.plan().draws_owed == 4


def test_limit_and_seed_removed_owe_nothing_and_count_what_is_asked(held: TinySweep) -> None:
    held.limits, held.seeds = (8,), (1,)
    assert owed(held) == {}
    assert held.plan().draws_held == 4


def test_patch_is_owed_only_when_draws_are(sweep: TinySweep) -> None:
    assert len(sweep.plan().patches) == 1
    hold(sweep, 32, ended=False)
    assert sweep.plan().patches == ()
    sweep.seeds = (0, 1, 2)
    assert len(sweep.plan().patches) == 1


def test_longer_answers_owe_answers_only_and_other_sampling_owes_everything(held: TinySweep) -> None:
    held.budget["answer_tokens"] = 24
    found = owed(held)
    assert {limits for limits, _ in found.values()} == {(8, 32)}
    assert {tokens for _, tokens in found.values()} == {32}
    held.budget["answer_tokens"] = 16
    held.temperature = 0.6
    assert {tokens for _, tokens in owed(held).values()} == {None}
