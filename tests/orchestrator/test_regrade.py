"""`regrade`: the store's texts, graded again without an engine. The sweep is real, its engine scripted."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from eval.grading import Grade, grader_id
from orchestrator.__main__ import main
from orchestrator.regrade import Differences, Disagreement, Regraded
from orchestrator.results.cells import read_results
from tests.support import ROOT
from tests.support.builders import TinySweep, make_grade, make_row
from workers.rows.tables import GradeRow

HANGS = r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n}}"


@pytest.fixture
def done(sweep: TinySweep) -> TinySweep:
    """A sweep of two variants that is complete and graded by the standard grader."""
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert sweep.run() == "done"
    return sweep


def regrade(sweep: TinySweep, *options: str) -> int:
    return main(["regrade", str(sweep.write_grid()), *options])


def graded_by(sweep: TinySweep) -> Counter[str]:
    """How many grades each grader has in the store."""
    return Counter(row["grader"].split("@")[0] for row in sweep.rows("grades"))


def put_answers(sweep: TinySweep, texts: list[str], variant: int = 0) -> None:
    """Draws of one variant whose answers at limit 8 read like this, one problem each, committed as a worker would."""
    decoding = sweep.resolve_grid().variants[variant].decodings[0]
    context, rows = decoding.context, []
    questions = sweep.resolve_grid().variants[variant].questions
    for question, text in zip(questions, texts, strict=False):
        row = make_row(trace=range(8), cuts=(8,), limit=8, prompt=question.gold.prompt_id, text=text)
        rows.append(replace(row, context_id=context.context_id, answer_context_id=context.answer_context_id))
    sweep.store.commit_draws(rows)


def stored_grade(sweep: TinySweep, problem: int, **columns: str) -> GradeRow:
    """A grade of the answer that `put_answers` gave to a problem; CORRECT by today's standard grader if left out."""
    (variant,) = sweep.resolve_grid().variants
    context, gold = variant.decodings[0].context, variant.questions[problem].gold
    names = {"context_id": context.context_id, "answer_context_id": context.answer_context_id, "gold_id": gold.gold_id}
    row = make_grade(gold.prompt_id, 0, 8)
    return replace(row, **{"grader": grader_id("standard"), "extracted": "", **names, **columns})


def answers(sweep: TinySweep) -> int:
    return sum(len(row["answers"]) for row in sweep.rows())


def test_another_grader_is_graded_beside_the_first_and_a_second_run_grades_nothing(
    done: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    before, draws = done.rows("grades"), done.rows()
    generated = len(done.engines.generated())
    assert regrade(done, "--grader", "exact") == 0
    assert f"exact: {answers(done)} answers graded, {answers(done)} stored" in capsys.readouterr().out
    assert graded_by(done) == {"standard": answers(done), "exact": answers(done)}
    assert [row for row in done.rows("grades") if row["grader"] == grader_id("standard")] == before

    assert regrade(done, "--grader", "exact") == 0
    assert f"exact: 0 answers graded, {answers(done)} stored" in capsys.readouterr().out
    assert graded_by(done)["exact"] == answers(done)
    assert (done.rows(), len(done.engines.generated())) == (draws, generated)


def test_results_use_the_grader_that_the_grid_names(done: TinySweep) -> None:
    assert regrade(done, "--grader", "exact") == 0
    done.runtime["grader"] = "exact"
    results = read_results(done.store, done.resolve_grid())
    assert results.complete
    assert done.plan().nothing_owed
    exact = {row["extracted"] for row in done.rows("grades") if row["grader"] == grader_id("exact")}
    assert {outcome.grade.extracted or "" for cell in results.cells for outcome in cell.outcomes} <= exact


def test_graders_that_disagree_are_counted(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    put_answers(sweep, [r"\boxed{\frac{8}{2}}", r"\boxed{4}", r"\boxed{5}", "no answer"])
    assert regrade(sweep) == 0
    assert "disagree" not in capsys.readouterr().out
    assert regrade(sweep, "--grader", "exact") == 0
    assert "exact and standard disagree on 1 of 4 answers" in capsys.readouterr().out


def test_killed_regrade_keeps_what_it_committed_and_the_next_goes_on(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    put_answers(sweep, [r"\boxed{4}", r"\boxed{5}"], variant=0)
    put_answers(sweep, [r"\boxed{6}", HANGS], variant=1)
    sweep.runtime["grader_seconds"] = 60.0
    sweep.resolve_grid()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "regrade", str(sweep.folder / "grid.yaml")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if "context 1 of 2 graded and committed" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert graded_by(sweep) == {"standard": 2}, heard

    sweep.runtime["grader_seconds"] = 1.0
    assert regrade(sweep) == 0
    assert "standard: 2 answers graded, 4 stored" in capsys.readouterr().out


def test_text_that_stops_the_grader_is_wrong_and_said_and_not_tried_again(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    put_answers(sweep, [r"\boxed{4}", HANGS])
    sweep.runtime["grader_seconds"] = 1.0
    assert regrade(sweep) == 0
    said = capsys.readouterr().out
    assert "standard: stopped by the text of 1 (timeout 1): scored as wrong, with the cause" in said
    (cell,) = [c for c in read_results(sweep.store, sweep.resolve_grid()).cells if c.limit == 8]
    metrics = cell.metrics
    assert (metrics.ungraded, metrics.defeated_grader, metrics.no_answer_rate, metrics.accuracy) == (0, 1, 0, 0.5)
    assert regrade(sweep) == 0
    assert "standard: 0 answers graded, 2 stored" in capsys.readouterr().out


def test_what_failed_on_our_side_is_missing_and_said_and_tried_again(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    put_answers(sweep, [r"\boxed{4}"])
    sweep.store.commit_grades([stored_grade(sweep, 0, verdict="UNPARSED", cause="killed: by SIGKILL")])
    (cell,) = [c for c in read_results(sweep.store, sweep.resolve_grid()).cells if c.limit == 8]
    assert (cell.metrics.ungraded, cell.metrics.accuracy) == (1, None)
    assert regrade(sweep) == 0
    assert "standard: 1 answer graded, 1 stored" in capsys.readouterr().out
    told = list(Regraded("standard", "standard", 0, 4, {"stalled": 1, "killed": 2}, {}, None, None).lines())
    assert told[1:] == ["standard: failed on 3 (killed 2, stalled 1): missing data, not scored as wrong"]


def test_forced_answer_is_graded_with_what_the_engine_wrote_before_it(sweep: TinySweep) -> None:
    sweep.budget = {"mode": "s1-legacy"}
    put_answers(sweep, [" 4\n\nThe rest of the working goes on for a while and says nothing."])
    assert regrade(sweep) == 0
    (grade,) = sweep.rows("grades")
    assert (grade["verdict"], grade["extracted"]) == ("CORRECT", "4")


def test_graders_that_disagree_are_listed_with_both_extractions(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    put_answers(sweep, [r"\boxed{\frac{8}{2}}", r"\boxed{4}"])
    assert regrade(sweep) == 0
    assert regrade(sweep, "--grader", "exact") == 0
    heading, row = capsys.readouterr().out.splitlines()[-2:]
    assert heading.split() == ["variant", "benchmark", "problem", "seed", "cut", "exact", "standard"]
    rule = sweep.rows("grades")[0]["rule"]
    found = rf"\frac{{8}}{{2}} ({rule})"
    assert row.split() == f"dense first mixed-000 0 8 INCORRECT {found} CORRECT {found}".split()

    assert regrade(sweep, "--grader", "exact", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (one,) = told["against_reference"]["answers"]
    assert (told["graded"], told["against_reference"]["compared"], told["against_before"]) == (0, 2, None)
    assert (one["problem_id"], one["cut"]) == ("mixed-000", 8)
    assert one["new"] == {"verdict": "INCORRECT", "extracted": r"\frac{8}{2}", "cause": None, "rule": rule}
    assert one["other"] == one["new"] | {"verdict": "CORRECT"}


def test_new_version_says_which_verdicts_it_changes_and_keeps_the_old(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    put_answers(sweep, [r"\boxed{4}", r"\boxed{5}", r"\boxed{6}", r"\boxed{7}"])
    older = {"grader": "standard@0+sympy-1.9"}
    oldest = [stored_grade(sweep, number, verdict="CORRECT", grader="standard@0+sympy-1.8") for number in range(4)]
    before = [
        stored_grade(sweep, 0, verdict="INCORRECT", extracted="40", **older),
        stored_grade(sweep, 1, verdict="INCORRECT", extracted="5", **older),
        stored_grade(sweep, 2, verdict="UNPARSED", cause="timeout: late", **older),
    ]
    sweep.store.commit_grades([*oldest, *before])
    assert regrade(sweep) == 0
    _, changes, heading, row = capsys.readouterr().out.splitlines()
    said = f"{grader_id('standard')} changes 1 of 2 verdicts of standard@0+sympy-1.9"
    assert changes == f"{said}, and judges 1 answer that it failed on"
    assert heading.split()[-2:] == ["now", "before"]
    assert row.split()[:7] == ["dense", "first", "mixed-000", "0", "8", "CORRECT", "4"]
    assert row.split()[-3:] == ["INCORRECT", "40", "(box)"]
    assert Counter(row["grader"] for row in sweep.rows("grades")) == {
        grader_id("standard"): 4, "standard@0+sympy-1.8": 4, "standard@0+sympy-1.9": 3,
    }  # fmt: skip


def test_list_is_cut_after_twenty_and_counted() -> None:
    one = Disagreement("dense", "first", "p", 0, 8, Grade("CORRECT", "4"), Grade("INCORRECT", "[4]"))
    regraded = Regraded("exact", "standard", 0, 40, {}, {}, Differences("standard@1", 40, 0, (one,) * 25), None)
    lines = list(regraded.lines())
    assert sum("INCORRECT [4]" in line for line in lines) == 20
    assert lines[-1] == "  and 5 more; --json lists all"


def test_verdict_stands_before_a_later_try_that_failed(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    put_answers(sweep, [r"\boxed{4}"])
    first = stored_grade(sweep, 0)
    sweep.store.commit_grades([first, replace(first, verdict="UNPARSED", cause="timeout: 10 s")])
    assert regrade(sweep) == 0
    assert capsys.readouterr().out == "standard: 0 answers graded, 1 stored\n"


def test_unknown_grader_is_refused_with_the_nearest_name(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert regrade(sweep, "--grader", "exakt") == 2
    assert "error: --grader: grader 'exakt' is unknown" in (said := capsys.readouterr().err)
    assert "Did you mean 'exact'?" in said
    sweep.runtime["grader"] = "standart"
    assert main(["regrade", str(sweep.write_grid())]) == 2
    assert "runtime.grader: grader 'standart' is unknown" in capsys.readouterr().err


def test_store_without_answers_is_refused_with_the_remedy(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert regrade(sweep) == 2
    assert "has no answers" in (said := capsys.readouterr().err)
    assert "orchestrator.sweep" in said


def test_regrading_loads_no_torch_vllm_ray_or_mlflow(sweep: TinySweep) -> None:
    put_answers(sweep, [r"\boxed{4}"])
    sweep.resolve_grid()
    script = (
        "import sys; from orchestrator.__main__ import main; "
        "status = main(['regrade', sys.argv[1], '--grader', 'exact']); "
        "heavy = {'torch', 'vllm', 'ray', 'transformers', 'mlflow'} & set(sys.modules); "
        "print('HEAVY', sorted(heavy)); sys.exit(status)"
    )
    command = [sys.executable, "-c", script, str(sweep.folder / "grid.yaml")]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["exact: 1 answer graded, 1 stored", "HEAVY []"]
