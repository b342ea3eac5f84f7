"""`regrade`: the store's texts, graded again without an engine. The sweep is real, its engine scripted."""

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from eval.grading import grader_id
from orchestrator.__main__ import main
from orchestrator.results.cells import read_results
from tests.support import ROOT
from tests.support.builders import TinySweep, make_grade, make_row

HANGS = r"\boxed{9^{9^{9^{9^{9}}}}!}"


@pytest.fixture
def done(sweep: TinySweep) -> TinySweep:
    """A sweep of two variants that is complete and graded by the standard grader."""
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    assert sweep.run() == "done"
    return sweep


def regrade(sweep: TinySweep, *options: str) -> int:
    sweep.resolve_grid()  # writes the grid as it stands now
    return main(["regrade", str(sweep.folder / "grid.yaml"), *options])


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


def answers(sweep: TinySweep) -> int:
    return sum(len(row["answers"]) for row in sweep.rows())


def test_another_grader_is_graded_beside_the_first_and_a_second_run_grades_nothing(
    done: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    before, draws = done.rows("grades"), done.rows()
    generated = len(done.engines.generated())
    assert regrade(done, "--grader", "exact") == 0
    assert f"exact: {answers(done)} answers graded, {answers(done)} held" in capsys.readouterr().out
    assert graded_by(done) == {"standard": answers(done), "exact": answers(done)}
    assert [row for row in done.rows("grades") if row["grader"] == grader_id("standard")] == before

    assert regrade(done, "--grader", "exact") == 0
    assert f"exact: 0 answers graded, {answers(done)} held" in capsys.readouterr().out
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
    assert "standard: 2 answers graded, 4 held" in capsys.readouterr().out


def test_grader_failure_stays_missing_and_is_said(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    put_answers(sweep, [r"\boxed{4}", HANGS])
    sweep.runtime["grader_seconds"] = 1.0
    assert regrade(sweep) == 0
    assert "standard: failed on 1 (timeout 1): missing data, not scored as wrong" in capsys.readouterr().out
    (cell,) = [c for c in read_results(sweep.store, sweep.resolve_grid()).cells if c.limit == 8]
    assert (cell.metrics.ungraded, cell.metrics.accuracy) == (1, 1.0)
    assert regrade(sweep) == 0
    assert "standard: 1 answers graded, 2 held" in capsys.readouterr().out, "it is tried again, and it alone"


def test_verdict_stands_before_a_later_try_that_failed(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    put_answers(sweep, [r"\boxed{4}"])
    (variant,) = sweep.resolve_grid().variants
    context, gold = variant.decodings[0].context, variant.questions[0].gold
    names = {"context_id": context.context_id, "answer_context_id": context.answer_context_id}
    first = replace(make_grade(gold.prompt_id, 0, 8), gold_id=gold.gold_id, grader=grader_id("standard"), **names)
    sweep.store.commit_grades([first, replace(first, verdict="UNPARSED", cause="timeout: 10 s")])
    assert regrade(sweep) == 0
    assert capsys.readouterr().out == "standard: 0 answers graded, 1 held\n"


def test_unknown_grader_is_refused_with_the_nearest_name(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert regrade(sweep, "--grader", "exakt") == 2
    assert "error: --grader: grader 'exakt' is unknown" in (said := capsys.readouterr().err)
    assert "Did you mean 'exact'?" in said
    sweep.runtime["grader"] = "standart"
    assert main(["regrade", str(sweep.grid_file())]) == 2
    assert "runtime.grader: grader 'standart' is unknown" in capsys.readouterr().err


def test_store_without_answers_is_refused_with_the_remedy(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert regrade(sweep) == 2
    assert "holds no answers" in (said := capsys.readouterr().err)
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
    assert ran.stdout.splitlines() == ["exact: 1 answers graded, 1 held", "HEAVY []"]
