"""Whole sweeps on the tiny model: real driver, store and workers in threads; only the engine is scripted."""

import pickle
import shutil
from collections import Counter
from dataclasses import replace
from typing import Literal

import pytest

from orchestrator.results.cells import CellResult, read_results
from orchestrator.scheduler.work import PatchState
from orchestrator.sweep import conclude
from pruning.model.checkpoint import Checkpoint
from pruning.patch.patch import Patch
from tests.support.builders import TinySweep
from tests.support.checkpoints import edited_checkpoint, halved
from workers.engines.scripted_engine import Die, SpoilSwap

POISON_PROBLEM = 2
LOOPS = (r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n}}", "answer: " * 100)
"""What a spoilt model writes."""


def first_rows(sweep: TinySweep) -> Counter[tuple[str, str, int, int]]:
    """How often each piece of a trace was committed; more than once means that something was made again."""
    return Counter((r["context_id"], r["prompt_id"], r["seed"], r["start"]) for r in sweep.rows() if r["trace_ids"])


def cells(sweep: TinySweep) -> tuple[CellResult, ...]:
    return read_results(sweep.store, sweep.resolve_grid()).cells


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> TinySweep:
    sweep = TinySweep(tmp_path_factory.mktemp("undisturbed"))
    assert sweep.run() == "done"
    return sweep


@pytest.fixture
def undisturbed(_finished: TinySweep) -> TinySweep:
    """The same sweep as `sweep`, run without faults; not to be run again or changed."""
    return replace(_finished)


@pytest.fixture
def made(sweep: TinySweep, undisturbed: TinySweep) -> TinySweep:
    """`sweep`, when it has been run without faults."""
    shutil.copytree(undisturbed.folder / "store", sweep.folder / "store")
    return sweep


def test_checkpoint_of_ones_own_is_a_variant_under_its_label(sweep: TinySweep) -> None:
    mine = edited_checkpoint(sweep.model, sweep.folder / "mine", halved)
    sweep.variants.append({"method": "checkpoint", "path": str(mine), "label": "half"})
    assert sweep.run() == "done"
    results = read_results(sweep.store, sweep.resolve_grid())
    assert results.complete
    assert [cell.variant.label for cell in results.cells if cell.limit == 32] == ["dense", "half"]
    assert len(results.against_dense) == 2, "compared with dense at both limits"
    (half,) = {cell.variant.patch_id for cell in results.cells if cell.variant.label == "half"}
    patch = Patch.open(sweep.store.fetch_patch(half, sweep.folder / "cache"))
    assert patch.manifest.tensors == Checkpoint.open(mine).tensor_digests()


def test_sweep_undisturbed_completes_every_cell(sweep: TinySweep) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert sweep.run(own_graders=True) == "done"
    results = read_results(sweep.store, sweep.resolve_grid())
    assert results.complete
    assert len(results.cells) == 4
    assert {cell.metrics.draws for cell in results.cells} == {8}
    assert len(sweep.store.patch_ids()) == 2
    assert sweep.plan().nothing_owed
    assert set(first_rows(sweep).values()) == {1}


def test_sweep_of_a_variant_that_writes_what_stops_every_grader_is_complete(sweep: TinySweep) -> None:
    sweep.engines = replace(sweep.engines, answers=LOOPS)
    sweep.limits, sweep.seeds, sweep.budget = (8,), tuple(range(6)), {"answer_tokens": 200}
    sweep.benchmarks = {"first": range(1)}
    sweep.runtime = {"grader_seconds": 0.5}
    assert sweep.run(own_graders=True) == "done"
    results = read_results(sweep.store, sweep.resolve_grid())
    assert conclude(results.resolved.grid, sweep.store, results, "done") == 0
    (cell,) = results.cells
    assert len({outcome.answer_tokens for outcome in cell.outcomes}) == len(LOOPS)
    stopped = [outcome for outcome in cell.outcomes if outcome.grade.defeated_grader]
    assert len(stopped) == cell.metrics.defeated_grader > 0
    assert {outcome.grade.cause for outcome in stopped} == {"timeout: 0.5 s of processor time were used up"}
    assert (cell.metrics.missing, cell.metrics.ungraded, cell.metrics.draws, cell.metrics.accuracy) == (0, 0, 6, 0)
    assert sweep.plan().nothing_owed


def test_forced_answers_of_a_sweep_are_graded_with_the_words_before_them(sweep: TinySweep) -> None:
    sweep.engines = replace(sweep.engines, answers=(" 4\n\nThe rest of the working goes on and says nothing.",))
    sweep.limits, sweep.benchmarks, sweep.budget = (2, 4), {"first": range(3)}, {"mode": "s1-legacy"}
    assert sweep.run() == "done"
    forced = {(r["prompt_id"], r["seed"], a["cut"]) for r in sweep.rows() for a in r["answers"] if a["forced"]}
    found = {row["extracted"] for row in sweep.rows("grades") if (row["prompt_id"], row["seed"], row["cut"]) in forced}
    assert found == {"4"}


def test_sweep_run_again_generates_nothing(made: TinySweep) -> None:
    rows = made.rows()
    assert len(rows) == 8
    assert made.run() == "done"
    assert made.engines.generated() == []
    assert made.rows() == rows


@pytest.mark.parametrize("lost_at", [1, 4, 11])
def test_sweep_with_lost_engines_equals_the_undisturbed_one(
    sweep: TinySweep, undisturbed: TinySweep, lost_at: int
) -> None:
    assert sweep.run(Die(at_ask=lost_at, times=2)) == "done"
    assert len(list((sweep.folder / "ledger").glob("*.happened"))) > 0, "the fault never happened"
    assert sweep.rows() == undisturbed.rows()
    assert sweep.rows("grades") == undisturbed.rows("grades")
    assert sweep.rows("failures") == []
    assert set(first_rows(sweep).values()) == {1}


def test_sweep_resumed_by_another_driver_makes_no_committed_draw_again(
    sweep: TinySweep, undisturbed: TinySweep
) -> None:
    # No engine gets past its seventh ask, so the first driver gives some draws up; the second is in better luck.
    sweep.run(Die(at_ask=7))
    held = len(sweep.rows())
    before = Counter(sweep.engines.generated())
    assert 0 < held <= 8
    assert sweep.run() == "done"
    new = Counter(sweep.engines.generated()) - before
    assert sum(one.ask == "trace" for one in new.elements()) <= 8 - held
    assert sweep.rows() == undisturbed.rows()
    assert set(first_rows(sweep).values()) == {1}


def test_swap_without_proof_counts_no_sample_and_is_tried_again(sweep: TinySweep, undisturbed: TinySweep) -> None:
    patch = sweep.resolve_grid().variants[0].patch_id
    assert sweep.run(SpoilSwap(patch, "proof", times=1)) == "done"
    assert sweep.rows() == undisturbed.rows()


def test_poison_prompt_is_missing_and_not_wrong(sweep: TinySweep, undisturbed: TinySweep) -> None:
    sweep.seeds = undisturbed.seeds = (0,)
    assert sweep.run(Die(prompt=sweep.prompt(POISON_PROBLEM))) == "done"
    (failure,) = sweep.rows("failures")
    assert (failure["problem_id"], failure["kind"]) == (f"mixed-{POISON_PROBLEM:03}", "engine-lost")
    assert failure["attempts"] >= 3
    whole = {cell.limit: cell for cell in cells(undisturbed)}
    for cell in cells(sweep):
        assert (cell.metrics.missing, cell.metrics.draws, cell.metrics.complete) == (1, 3, False)
        others = [o for o in whole[cell.limit].outcomes if o.problem_id != failure["problem_id"]]
        assert sorted(cell.outcomes, key=repr) == sorted(others, key=repr)
        assert cell.metrics.accuracy == pytest.approx(sum(bool(o.correct) for o in others) / 3)


def test_given_up_draw_is_owed_again_and_made_by_the_next_run(sweep: TinySweep, undisturbed: TinySweep) -> None:
    assert sweep.run(Die(prompt=sweep.prompt(POISON_PROBLEM))) == "done"
    assert sweep.plan().draws_owed == 2
    assert sweep.run() == "done"
    assert sweep.rows() == undisturbed.rows()


@pytest.mark.parametrize("kind", ["nan", "canary"])
def test_variant_that_gives_nan_or_another_canary_fails_alone(sweep: TinySweep, kind: Literal["nan", "canary"]) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    dense, pruned = sweep.resolve_grid().variants
    assert sweep.run(SpoilSwap(pruned.patch_id, kind)) == "done"
    failures = sweep.rows("failures")
    assert len(failures) == 8
    assert {(f["kind"], f["attempts"]) for f in failures} == {(kind, 1)}
    by_variant = {(cell.variant.patch_id, cell.limit): cell.metrics for cell in cells(sweep)}
    assert by_variant[(dense.patch_id, 8)].complete
    assert by_variant[(pruned.patch_id, 8)].missing == 8
    assert by_variant[(pruned.patch_id, 8)].accuracy is None


def test_added_smaller_limit_generates_only_its_answers(made: TinySweep) -> None:
    made.limits = (4, 8, 32)
    assert made.run() == "done"
    new = made.engines.generated()
    assert {one.ask for one in new} == {"answer@4"}
    assert len(new) <= 8
    assert read_results(made.store, made.resolve_grid()).complete


def test_added_larger_limit_extends_only_the_traces_that_were_cut(sweep: TinySweep) -> None:
    sweep.limits = (4, 8)
    sweep.engines = replace(sweep.engines, typical_length=4)
    assert sweep.run() == "done"
    cut = {(r["prompt_id"], r["seed"]) for r in sweep.rows() if not r["ended"]}
    assert 0 < len(cut) < 8, "the scripted lengths do not make this a test"
    before = Counter(sweep.engines.generated())
    sweep.limits = (4, 8, 32)
    assert sweep.run() == "done"
    new = list((Counter(sweep.engines.generated()) - before).elements())
    assert sum(one.ask == "trace" for one in new) == len(cut)
    extended = {(r["prompt_id"], r["seed"]) for r in sweep.rows() if r["start"] == 8}
    assert extended == cut
    assert read_results(sweep.store, sweep.resolve_grid()).complete


def test_added_seed_generates_only_its_draws(made: TinySweep) -> None:
    made.seeds = (0, 1, 2)
    before = {(r["prompt_id"], r["seed"]) for r in made.rows()}
    assert made.run() == "done"
    new = {(r["prompt_id"], r["seed"]) for r in made.rows()} - before
    assert {seed for _, seed in new} == {2}
    assert len(new) == 4
    assert set(first_rows(made).values()) == {1}


def test_added_benchmark_that_overlaps_generates_only_its_new_problems(made: TinySweep) -> None:
    made.benchmarks["second"] = range(2, 6)
    assert made.run() == "done"
    assert set(first_rows(made).values()) == {1}
    assert len(made.rows()) == 12
    by_name = {(cell.benchmark, cell.limit): cell.metrics for cell in cells(made)}
    assert by_name[("second", 8)].complete
    assert by_name[("second", 8)].draws == 8


def test_removed_limit_and_seed_leave_the_store_alone_and_owe_nothing(made: TinySweep) -> None:
    rows = made.rows()
    made.limits, made.seeds = (32,), (1,)
    assert made.plan().nothing_owed
    assert made.run() == "done"
    assert made.rows() == rows


def test_other_batching_gives_the_same_rows(sweep: TinySweep, undisturbed: TinySweep) -> None:
    sweep.runtime = {"in_flight": 7, "engines": 2, "commit_seconds": 60.0}
    assert sweep.run() == "done"
    assert sweep.rows() == undisturbed.rows()


def test_scripted_engines_travel_to_other_processes(sweep: TinySweep) -> None:
    assert pickle.loads(pickle.dumps(sweep.engines)) == sweep.engines


def test_independent_limits_agree_with_shared_ones_token_for_token(sweep: TinySweep, undisturbed: TinySweep) -> None:
    sweep.budget["independent_limits"] = True
    assert sweep.run() == "done"
    shared = {(cell.limit, repr(sorted(cell.outcomes, key=repr))) for cell in cells(undisturbed)}
    assert {(cell.limit, repr(sorted(cell.outcomes, key=repr))) for cell in cells(sweep)} == shared
    assert len(sweep.rows()) == 2 * len(undisturbed.rows())


def test_engine_that_never_starts_ends_the_sweep_with_the_reason_and_no_failure(sweep: TinySweep) -> None:
    sweep.engines = replace(sweep.engines, ledger=str(sweep.folder / "file"))
    (sweep.folder / "file").write_text("a folder cannot be here")
    assert sweep.run() == "no engine worker comes up"
    assert sweep.rows("failures") == []
    assert sweep.plan().draws_owed == 8


def test_stop_asked_ends_with_its_reason_and_the_next_run_goes_on(sweep: TinySweep, undisturbed: TinySweep) -> None:
    assert sweep.run(stop_after=3) == "stopped by test"
    assert 3 <= len(sweep.rows()) < 8
    assert sweep.rows("failures") == []
    assert sweep.run() == "done"
    assert sweep.rows() == undisturbed.rows()
    assert set(first_rows(sweep).values()) == {1}


def test_patch_in_the_store_is_not_made_again(sweep: TinySweep, undisturbed: TinySweep) -> None:
    patch = undisturbed.resolve_grid().variants[0].patch_id
    sweep.store.publish_patch(undisturbed.store.fetch_patch(patch, sweep.folder), patch)
    assert [work.state for work in sweep.core().state.patches.values()] == [PatchState.STORED]
    assert sweep.run() == "done"
    assert not (sweep.folder / "scratch" / "pruning").exists()
    assert sweep.rows() == undisturbed.rows()
