"""The table of results: accuracies, what is missing, and which variants differ from dense."""

from dataclasses import replace

from eval.grading import grader_id
from orchestrator.results.cells import read_results
from orchestrator.results.table import final_table
from tests.support.builders import TinySweep, make_grade, make_row


def commit_graded(sweep: TinySweep, variant: int, verdict: str, problems: int) -> None:
    """Draws of one variant's first `problems`, answered at limit 8 and graded."""
    found = sweep.resolve_grid().variants[variant]
    context = found.decodings[0].context
    names = {"context_id": context.context_id, "answer_context_id": context.answer_context_id}
    golds = [question.gold for question in found.questions[:problems]]
    rows = [make_row(range(8), (8,), limit=8, prompt=gold.prompt_id) for gold in golds]
    sweep.store.commit_draws([replace(row, **names) for row in rows])
    grades = [replace(make_grade(gold.prompt_id, cut=8), gold_id=gold.gold_id, **names) for gold in golds]
    grader = grader_id("standard")
    sweep.store.commit_grades([replace(grade, grader=grader, verdict=verdict) for grade in grades])


def cells(sweep: TinySweep) -> dict[str, str]:
    """Label -> the text of its cell at limit 8."""
    lines = final_table(read_results(sweep.store, sweep.resolve_grid())).splitlines()
    return {line.split("│")[2].strip(): line.split("│")[3].strip() for line in lines if line.startswith("│")}


def test_loss_against_dense_is_marked_and_missing_draws_are_counted(sweep: TinySweep) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": [0.2, 0.5]})
    sweep.limits, sweep.seeds, sweep.benchmarks = (8,), (0,), {"first": range(20)}
    commit_graded(sweep, 0, "CORRECT", 20)
    commit_graded(sweep, 1, "INCORRECT", 20)
    commit_graded(sweep, 2, "CORRECT", 15)
    assert cells(sweep) == {
        "dense": "1.0 [.82, 1.0]*",
        "magnitude + uniform at 0.2": ".00 [.00, .18]*▼",
        "magnitude + uniform at 0.5": "1.0 [.77, 1.0]*(5 missing: .75-1.0)  ?",
    }


def test_loss_is_in_doubt_where_missing_draws_could_undo_it(sweep: TinySweep) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": [0.2, 0.5]})
    sweep.limits, sweep.seeds, sweep.benchmarks = (8,), (0,), {"first": range(20)}
    commit_graded(sweep, 0, "CORRECT", 20)
    commit_graded(sweep, 1, "INCORRECT", 19)
    commit_graded(sweep, 2, "INCORRECT", 7)
    shown = cells(sweep)
    assert shown["magnitude + uniform at 0.2"] == ".00 [.00, .19]*(1 missing: .00-.05) ▼"
    assert shown["magnitude + uniform at 0.5"] == ".00 [.00, .46]*(13 missing: .00-.65) ▼"


def test_legend_says_what_each_mark_is(sweep: TinySweep) -> None:
    legend = " ".join(final_table(read_results(sweep.store, sweep.resolve_grid())).split())
    for mark in ("95 % interval", "*: under 10 questions", "▼ ▲:", "(n missing: a-b)", "?: compared with dense"):
        assert mark in legend


def test_cell_without_draws_has_no_accuracy(sweep: TinySweep) -> None:
    assert cells(sweep) == {"dense": "– (8 missing)"}
