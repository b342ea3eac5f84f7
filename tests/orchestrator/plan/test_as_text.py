"""What the `plan` command prints for grids on small stores whose rows are committed as a worker would."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from eval.grading import grader_id
from orchestrator.__main__ import main
from tests.support.builders import TINY, TinySweep, make_grade, make_row


def told(sweep: TinySweep, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What `plan` prints of the sweep as it stands."""
    capsys.readouterr()
    assert main(["plan", str(sweep.write_grid()), *options]) == 0
    return capsys.readouterr().out


def store_draws(
    sweep: TinySweep, draws: Sequence[int], length: int, cuts: Sequence[int], *, ended: bool = False, began: float = 0.0
) -> None:
    """Commit these draws of the first variant, by number, one a second from `began` on."""
    variant = sweep.resolve_grid().variants[0]
    context = variant.decodings[0].context
    rows = []
    for moment, number in enumerate(draws):
        question, seed = divmod(number, len(sweep.seeds))
        prompt = variant.distinct[question].gold.prompt_id
        row = make_row(
            range(length), cuts, limit=32, ended=ended, prompt=prompt, seed=sweep.seeds[seed], created_at=began + moment
        )
        rows.append(replace(row, context_id=context.context_id, answer_context_id=context.answer_context_id))
    sweep.store.commit_draws(rows)


def test_fresh_store(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": [0.2, 0.5]})
    sweep.benchmarks["second"] = range(2, 6)
    assert (
        told(sweep, capsys)
        == f"""\
tiny: 6 cells = 3 variants × 2 token limits, on 2 benchmarks with 2 seeds; store {sweep.folder}/store

                stored       owed
  patches            0          3
  draws              0         36  36 new
                                   without 12 for questions that another benchmark asks, too

  tokens    at most 1,152 for thinking (by the benchmarks' usual lengths: nothing is stored)
  disk      about 4.6 kB of draws (4 bytes a token) and 53 kB of patches
  time      unknown until an engine has committed a few draws to this store; plan again then

      stored       owed  variants
           0         12  3 × dense, magnitude + uniform at 0.2, magnitude + uniform at 0.5

  each of first and second (4 questions) with 2 seeds: too few to find even a loss of all 50 points in 80 % of sweeps \
(8 comparisons, Holm)

  sampling  temperature 1
"""
    )


def test_stored_draws_of_every_kind(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": 0.5})
    sweep.seeds, sweep.limits, sweep.runtime = (0, 1, 2), (8, 16, 32), {"engines": 8}
    store_draws(sweep, [0, 1], 20, (8, 16, 20), ended=True)
    store_draws(sweep, [2, 3], 32, (8, 32), began=2.0)
    store_draws(sweep, [4, 5, 6], 12, (8, 12), ended=True, began=4.0)
    store_draws(sweep, [7], 24, (8, 16), began=7.0)
    stored = sum(file.size for file in sweep.store.files.listing("draws"))
    text = told(sweep, capsys)
    assert text.splitlines()[2:11] == [
        "                stored       owed",
        "  patches            0          2",
        "  draws              5         19  16 new, 1 stored trace to be continued, 2 answers to 2 stored traces",
        "  grades                       18  stored answers that the grader has not judged",
        "",
        # The questions' means are 24, 18.7, 22 (a trace cut at 24 is taken to reach the limit) and, unseen, 32:
        # 22 + 8 + 3 * 32 of dense, and three times each for the other variant.
        "  tokens    about 416, at most 520 for thinking (by 8 stored traces)",
        f"  disk      about {stored / 164 * 416 / 1000:.0f} kB of draws (as measured in this store) and "
        "31 kB of patches",
        "  time      about 20 s on one engine, 3 s on 8, without pruning (at 21 tokens/s, the rate of 6 stored draws)",
        "",
    ]
    assert text.splitlines()[11:15] == [
        "      stored       owed  variants",
        "           5          7  dense",
        "           0         12  magnitude + uniform at 0.5",
        "",
    ]


def test_json_tells_what_the_page_tells_and_the_store_that_was_looked_at(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store_draws(sweep, [0, 1, 2], 20, (8,))
    store_draws(sweep, [3], 32, (8, 32), began=3.0)
    plan = json.loads(told(sweep, capsys, "--json"))
    assert plan["store"] == str(sweep.folder / "store")
    assert (plan["cells"], plan["variants"], plan["repeated_variants"]) == (2, 1, [])
    assert plan["draws"] == {"held": 1, "owed": 7}
    assert plan["draws_owed"] == {"new": 4, "continued_traces": 3, "stored_traces_without_answers": 0}
    assert (plan["thinking_tokens_at_most"], plan["answers_to_grade"]) == (4 * 32 + 3 * 12, 5)
    elsewhere = told(sweep, capsys, "--store", str(tmp_path / "elsewhere"))
    assert f"store {tmp_path / 'elsewhere'}\n" in elsewhere
    assert "8 new" in elsewhere


def test_answers_to_traces_that_ended_take_no_thinking(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    store_draws(sweep, range(8), 20, (20,), ended=True)
    lines = told(sweep, capsys).splitlines()
    assert lines[4] == "  draws              0          8  8 answers to 8 stored traces"
    assert lines[7:9] == [
        "  tokens    none: only answers to stored traces are owed",
        "  disk      about 0 bytes of patches",
    ]


def test_finished_sweep_owes_nothing_and_costs_nothing(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    store_draws(sweep, range(8), 20, (8, 20), ended=True)
    (variant,) = sweep.resolve_grid().variants
    context = variant.decodings[0].context
    sweep.store.files.publish(f"patches/{variant.patch_id}/manifest.json", b"{}")
    only_grades = told(sweep, capsys).splitlines()
    assert only_grades[4:8] == [
        "  draws              8          0",
        "  grades                       16  stored answers that the grader has not judged",
        "",
        "  only grades are owed, which need no engine",
    ]
    names = {"context_id": context.context_id, "answer_context_id": context.answer_context_id}
    sweep.store.commit_grades(
        [
            replace(make_grade(gold.prompt_id, seed, cut), gold_id=gold.gold_id, grader=grader_id("standard"), **names)
            for gold in (question.gold for question in variant.questions)
            for seed in sweep.seeds
            for cut in (8, 20)
        ]
    )
    assert told(sweep, capsys).splitlines()[2:-3] == [
        "                stored       owed",
        "  patches            1          0",
        "  draws              8          0",
        "",
        "  nothing is owed",
        "",
        "      stored       owed  variants",
        "           8          0  dense",
        "",
    ]


def test_variant_of_the_same_content_is_named_and_counted_once(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copy(TINY / "calibration.jsonl", sweep.folder / "copy.jsonl")
    for data in (TINY / "calibration.jsonl", copy):
        calibration = {"data": str(data), "samples": 8, "tokens": 64}
        sweep.variants.append({"method": "wanda", "sparsity": 0.5, "calibration": calibration})
    lines = told(sweep, capsys).splitlines()
    assert lines[0].startswith("tiny: 4 cells = 2 variants × 2 token limits")
    assert lines[1] == (
        "  line 32: wanda + uniform at 0.5, copy has the same content as wanda + uniform at 0.5, calibration on line "
        "26, and is counted once"
    )
    assert "(2 comparisons, Holm)" in lines[-3]


def test_page_of_a_large_grid_fits_a_screen(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.variants.append({"method": "magnitude", "sparsity": [round(0.01 * n, 2) for n in range(1, 80)]})
    store_draws(sweep, [0, 1], 20, (8, 20), ended=True)
    lines = told(sweep, capsys).splitlines()
    assert len(lines) < 20
    # 20 for each of 158 draws of the question that was seen, 32 for each of 480 others, in three digits.
    assert lines[7] == "  tokens    about 18,500, at most 20,416 for thinking (by 2 stored traces)"
    assert lines[-6] == "           2          6  dense"
    assert lines[-5].startswith(
        "           0          8  79 × magnitude + uniform at 0.01, magnitude + uniform at 0.02"
    )
    assert lines[-5].endswith(", and 77 more")
