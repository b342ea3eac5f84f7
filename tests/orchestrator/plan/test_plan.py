"""What an edited grid owes, answer by answer, on a store that a sweep has filled."""

import pytest

from tests.support.builders import TinySweep, make_row
from workers.rows.tables import DrawRow


def store_rows(sweep: TinySweep, trace_length: int, *, ended: bool) -> None:
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
    stored = context.stored_tokens()
    items = context.items(context.numbers)
    assert all((item.number in stored) == item.continues for item in items)
    return {(i.job.problem_id, i.job.seed): (i.job.limits, stored.get(i.number)) for i in items}


@pytest.fixture
def stored(sweep: TinySweep) -> TinySweep:
    """Every draw is stored, cut at limit 32."""
    store_rows(sweep, 32, ended=False)
    assert owed(sweep) == {}
    assert sweep.plan().draws_stored == 8
    return sweep


def test_smaller_limit_added_owes_only_its_answers_on_the_stored_trace(stored: TinySweep) -> None:
    stored.limits = (4, 8, 32)
    found = owed(stored)
    assert len(found) == 8
    assert {limits for limits, _ in found.values()} == {(4,)}
    assert {tokens for _, tokens in found.values()} == {32}
    assert stored.plan().contexts[0].new_tokens == 0


def test_larger_limit_added_owes_only_the_extension(stored: TinySweep) -> None:
    stored.limits = (8, 32, 48)
    assert {limits for limits, _ in owed(stored).values()} == {(48,)}
    assert stored.plan().contexts[0].new_tokens == 8 * (48 - 32)


def test_trace_that_ended_owes_nothing_for_a_larger_limit(sweep: TinySweep) -> None:
    store_rows(sweep, 20, ended=True)
    sweep.limits = (8, 32, 48)
    assert owed(sweep) == {}


def test_trace_that_ended_owes_the_answer_at_a_cut_below_its_end(sweep: TinySweep) -> None:
    store_rows(sweep, 20, ended=True)
    sweep.limits = (8, 16, 24, 48)
    assert {limits for limits, _ in owed(sweep).values()} == {(16,)}


def test_seed_added_owes_only_that_seed(stored: TinySweep) -> None:
    stored.seeds = (0, 1, 5)
    assert {seed for _, seed in owed(stored)} == {5}
    assert len(owed(stored)) == 4


def test_problems_added_are_owed_and_those_in_two_benchmarks_once(stored: TinySweep) -> None:
    stored.benchmarks["second"] = range(2, 6)
    assert {problem for problem, _ in owed(stored)} == {"mixed-004", "mixed-005"}
    stored.benchmarks["third"] = range(4, 6)
    assert stored.plan().draws_owed == 4


def test_limit_and_seed_removed_owe_nothing_and_count_what_is_asked(stored: TinySweep) -> None:
    stored.limits, stored.seeds = (8,), (1,)
    assert owed(stored) == {}
    assert stored.plan().draws_stored == 4


def test_patch_is_owed_only_when_draws_are(sweep: TinySweep) -> None:
    assert len(sweep.plan().patches) == 1
    store_rows(sweep, 32, ended=False)
    assert sweep.plan().patches == ()
    sweep.seeds = (0, 1, 2)
    assert len(sweep.plan().patches) == 1


def test_longer_answers_owe_answers_only_and_other_sampling_owes_everything(stored: TinySweep) -> None:
    stored.budget["answer_tokens"] = 24
    found = owed(stored)
    assert {limits for limits, _ in found.values()} == {(8, 32)}
    assert {tokens for _, tokens in found.values()} == {32}
    stored.budget["answer_tokens"] = 16
    stored.temperature = 0.6
    assert {tokens for _, tokens in owed(stored).values()} == {None}


@pytest.mark.parametrize("part", [{"first": 3}, {"sample": 3, "seed": 5}], ids=str)
def test_part_of_a_benchmark_and_then_the_whole_owes_only_the_rest(sweep: TinySweep, part: dict[str, int]) -> None:
    sweep.benchmarks, sweep.parts = {"first": range(8)}, {"first": part}
    assert sweep.run() == "done"
    done = {row["problem_id"] for row in sweep.rows()}
    assert len(done) == 3
    sweep.parts = {}
    assert {problem for problem, _ in owed(sweep)} == {f"mixed-{number:03}" for number in range(8)} - done
    assert sweep.plan().draws_stored == 3 * len(sweep.seeds)
    sweep.parts = {"first": part}
    assert owed(sweep) == {}


def test_whole_benchmark_owes_nothing_for_a_part_of_it(sweep: TinySweep) -> None:
    store_rows(sweep, 32, ended=False)
    sweep.parts = {"first": {"sample": 2}}
    assert owed(sweep) == {}
    assert sweep.plan().draws_stored == 4
