"""Benchmarks, whole and in part: each data set's real columns and quirks, copies that are not what they are called, and
samples that depend on nothing but ids and seed. The rows of one's own files are in test_problems.py.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet

from eval.benchmarks import Benchmark, load_benchmark, sample_of
from eval.built_in import BUILT_IN
from eval.spec import BenchmarkSpec
from tests.support import ROOT

# One row as published, per data set (short texts of our own; GPQA's items must not be republished).
MATH_ROW = {
    "problem": "Convert $(0,3)$ to polar coordinates.", "solution": "... $\\boxed{...}$",
    "answer": "\\left( 3, \\frac{\\pi}{2} \\right)", "subject": "Precalculus", "level": 2,
    "unique_id": "test/precalculus/807.json",
}  # fmt: skip
AIME24_ROW = {
    "id": 60,
    "problem": "Every morning ...",
    "solution": "...",
    "answer": "025",
    "url": "u",
    "year": "2024",
}
AIME25_ROW = {"problem": "Suppose triangle ...", "answer": "336^\\circ", "id": "19"}
AMC_ROW = {"id": 0, "answer": 27.0, "question": "Cities $A$ and $B$ are 45 miles apart.", "url": "u"}
GPQA_ROW = {
    "Record ID": "rec1", "Question": "Which?\nPick.", "Correct Answer": "right\n", "Incorrect Answer 1": "w1",
    "Incorrect Answer 2": "w2", "Incorrect Answer 3": "w3", "Explanation": "...", "Subdomain": "Physics",
}  # fmt: skip


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def copy(name: str, file: Path, *rows: object) -> Benchmark:
    """A built-in from a local copy of a few rows, which says so."""
    return load_benchmark(BenchmarkSpec(f"{name}={jsonl(file, *rows) if rows else file}", rows="any"))


def test_math500_keeps_latex_and_its_own_ids(tmp_path):
    benchmark = copy("MATH-500", tmp_path / "test.jsonl", MATH_ROW)
    (problem,) = benchmark.problems
    assert benchmark.name == "MATH-500 of 1 row"
    assert (problem.id, problem.kind) == ("test/precalculus/807.json", "math")
    assert problem.answer == "\\left( 3, \\frac{\\pi}{2} \\right)"
    assert benchmark.typical_tokens == BUILT_IN["MATH-500"].typical_tokens == 3_500


def test_aime24_parquet_with_leading_zeros_and_number_ids(tmp_path):
    parquet.write_table(pa.Table.from_pylist([AIME24_ROW]), tmp_path / "train.parquet")
    (problem,) = copy("AIME24", tmp_path / "train.parquet").problems
    assert (problem.id, problem.answer, problem.kind) == ("60", "25", "integer")


def test_aime25_answer_with_a_degree_sign(tmp_path):
    (problem,) = copy("AIME25", tmp_path / "test.jsonl", AIME25_ROW).problems
    assert problem.answer == "336"


def test_amc23_floats_are_whole_numbers(tmp_path):
    rows = [AMC_ROW, {**AMC_ROW, "id": 1, "answer": "36"}, {**AMC_ROW, "id": 2, "answer": "45.0"}]
    problems = copy("AMC23", tmp_path / "test.jsonl", *rows).problems
    assert [(problem.id, problem.answer) for problem in problems] == [("0", "27"), ("1", "36"), ("2", "45")]


def test_gpqa_csv_with_newlines_permutes_and_stores_the_permutation(tmp_path):
    csv.write_csv(pa.Table.from_pylist([GPQA_ROW]), tmp_path / "gpqa_diamond.csv")
    (problem,) = copy("GPQA-Diamond", tmp_path / "gpqa_diamond.csv").problems
    source = ("right", "w1", "w2", "w3")
    assert problem.text == "Which?\nPick."
    assert problem.choices == tuple(source[index] for index in problem.permutation)
    assert problem.choices["ABCD".index(problem.answer)] == "right"


def test_dropping_an_item_does_not_reletter_the_rest(tmp_path):
    rows = [{**GPQA_ROW, "Record ID": f"rec{i}"} for i in range(6)]
    whole = copy("GPQA-Diamond", tmp_path / "a.jsonl", *rows).problems
    fewer = copy("GPQA-Diamond", tmp_path / "b.jsonl", *rows[1:]).problems
    assert whole[1:] == fewer


def test_the_shipped_benchmarks_load():
    for path in sorted((ROOT / "examples" / "tiny").glob("chain-*.jsonl")):
        assert len(load_benchmark(str(path)).problems) >= 100


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("MATH500", r"neither a built-in .* nor a file.*Did you mean 'MATH-500'"),
        ("aime-24", "Did you mean 'AIME24'"),
        ("MATH500=copy.parquet", "Did you mean 'MATH-500'"),
        ("missing.jsonl", r"missing\.jsonl does not exist"),
        ("AIME24=missing.parquet", r"missing\.parquet does not exist"),
    ],
)
def test_unknown_names_and_missing_files(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_benchmark(name)


def test_wrong_columns_and_answers_of_a_local_copy(tmp_path):
    with pytest.raises(ValueError, match=r"row 1: column 'problem' is missing \(found question, answer\)"):
        load_benchmark(f"AIME24={jsonl(tmp_path / 'a.jsonl', {'question': 'q', 'answer': '1'})}")
    with pytest.raises(ValueError, match=r"row 1: answer '1/2' is not a whole number"):
        load_benchmark(f"AIME24={jsonl(tmp_path / 'a.jsonl', {**AIME24_ROW, 'answer': '1/2'})}")


@pytest.mark.parametrize(("name", "more"), [("AIME24", "id, problem, answer"), ("GPQA-Diamond", "HF_TOKEN")])
def test_without_the_hub_the_message_says_how_to_go_on(name, more, tmp_path, monkeypatch):
    import datasets

    # Offline by the library's own switch, with an empty cache: what a machine without network sees.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setitem(os.environ, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=rf"{name}=PATH with a local copy") as caught:
        load_benchmark(name)
    assert more in str(caught.value)


def test_gsm8k_gold_is_what_ends_the_worked_solution(tmp_path: Path) -> None:
    solution = "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### "
    rows = [{"question": "How many?", "answer": solution + gold} for gold in ("72", " 1,200", "-5", "3,400,000")]
    problems = copy("gsm8k", tmp_path / "main.jsonl", *rows).problems
    assert [problem.answer for problem in problems] == ["72", "1200", "-5", "3400000"]
    assert [problem.id for problem in problems] == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match=r"row 1: the answer 'about 24' has nothing after '####'"):
        copy("GSM8K", tmp_path / "bad.jsonl", {"question": "How many?", "answer": "about 24"})


def test_svamp_asks_body_and_question_together(tmp_path: Path) -> None:
    text = "Pat has 8 pens. He lost 3 How many are left?"
    svamp_row = {
        "ID": "chal-1", "Body": "Pat has 8 pens. He lost 3", "Question": "How many are left?",
        "Equation": "( 8.0 - 3.0 )", "Answer": "5", "Type": "Subtraction", "question_concat": text,
    }  # fmt: skip
    (problem,) = copy("svamp", tmp_path / "test.jsonl", svamp_row).problems
    assert (problem.id, problem.text, problem.answer) == ("chal-1", text, "5")


# --- copies that are not what they are called -----------------------------------------------------------


@pytest.fixture
def aime(tmp_path: Path) -> Callable[[int], str]:
    """A copy of AIME24 with so many rows."""

    def written(rows: int) -> str:
        file = jsonl(tmp_path / f"{rows}.jsonl", *({**AIME24_ROW, "id": number} for number in range(rows)))
        return f"aime24={file}"

    return written


def test_a_copy_with_the_pinned_number_of_rows_has_the_pinned_name(aime: Callable[[int], str]) -> None:
    assert load_benchmark(aime(30)).name == "AIME24"


@pytest.mark.parametrize("rows", [29, 31])
def test_a_copy_with_another_number_of_rows_is_refused_and_each_remedy_works(
    aime: Callable[[int], str], rows: int
) -> None:
    with pytest.raises(ValueError, match=rf"AIME24: .*{rows}\.jsonl has {rows} rows, but AIME24 has 30") as refused:
        load_benchmark(aime(rows))
    name = aime(rows).replace("aime24", "AIME24")
    assert f"{{name: {name}, rows: any}}" in str(refused.value)
    assert load_benchmark(BenchmarkSpec(name, rows="any")).name == f"AIME24 of {rows} rows"
    assert (f"{{name: {name}, first: {rows}}}" in str(refused.value)) == (rows < 30)
    if rows < 30:
        assert load_benchmark(BenchmarkSpec(name, first=rows)).name == f"AIME24 first {rows}"


def test_a_part_of_a_copy_of_another_size_is_refused_or_named_with_that_size(aime: Callable[[int], str]) -> None:
    spec = BenchmarkSpec(aime(20), sample=5, seed=3)
    with pytest.raises(ValueError, match=r"20 rows, but AIME24 has 30.*, sample: 5, seed: 3, rows: any\}"):
        load_benchmark(spec)
    with pytest.raises(ValueError, match="first is 21, but AIME24 has 20 problems"):
        load_benchmark(BenchmarkSpec(aime(20), first=21, rows="any"))
    benchmark = load_benchmark(BenchmarkSpec(aime(20), sample=5, seed=3, rows="any"))
    assert (benchmark.name, len(benchmark.problems)) == ("AIME24 sample 5 seed 3 of 20 rows", 5)


# --- parts ----------------------------------------------------------------------------------------------

MIXED = str(ROOT / "examples/tiny/chain-mixed.jsonl")


def test_the_first_problems_are_the_first_rows() -> None:
    whole, part = load_benchmark(MIXED), load_benchmark(BenchmarkSpec(MIXED, first=7))
    assert (part.name, part.problems) == ("chain-mixed first 7", whole.problems[:7])
    assert load_benchmark(BenchmarkSpec(MIXED, first=len(whole.problems))).problems == whole.problems


def test_a_sample_keeps_the_order_of_the_rows_and_says_its_seed() -> None:
    whole, part = load_benchmark(MIXED), load_benchmark(BenchmarkSpec(MIXED, sample=7, seed=1))
    assert part.name == "chain-mixed sample 7 seed 1"
    assert len(part.problems) == 7
    assert list(part.problems) == [problem for problem in whole.problems if problem in part.problems]
    assert part.problems != load_benchmark(BenchmarkSpec(MIXED, sample=7)).problems


def test_the_sample_of_a_seed_is_the_same_in_every_version() -> None:
    # printf 'sample/0/%s' $i | sha256sum, for i from 0 to 99, sorted: the first five.
    assert sample_of(map(str, range(100)), 5, 0) == {"1", "30", "42", "73", "74"}


@given(ids=st.sets(st.text(max_size=8), min_size=1, max_size=40), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_a_sample_depends_on_ids_and_seed_alone_and_grows_by_adding(
    ids: set[str], data: st.DataObject, seed: int
) -> None:
    count = data.draw(st.integers(1, len(ids)))
    sample = sample_of(ids, count, seed)
    assert len(sample) == count
    assert sample <= ids
    assert sample_of(data.draw(st.permutations(sorted(ids))), count, seed) == sample
    assert sample <= sample_of(ids, min(count + 1, len(ids)), seed)
    # Problems that are not in the sample do not matter to it.
    kept = sample | data.draw(st.sets(st.sampled_from(sorted(ids))))
    assert sample_of(kept, count, seed) == sample


def test_samples_of_many_seeds_take_every_problem_equally_often() -> None:
    ids = [f"q{number}" for number in range(40)]
    counts = dict.fromkeys(ids, 0)
    for seed in range(400):
        for chosen in sample_of(ids, 10, seed):
            counts[chosen] += 1
    chi_squared = sum((count - 100) ** 2 / 75 for count in counts.values())
    assert chi_squared < 73  # 0.999 quantile with 39 degrees of freedom


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (BenchmarkSpec(MIXED, first=3, sample=3), "sample is 3, but first is 3 as well"),
        (BenchmarkSpec(MIXED, first=0), "first is 0, but a part has at least one problem"),
        (BenchmarkSpec(MIXED, sample=-1), "sample is -1, but a part has at least one problem"),
        (BenchmarkSpec(MIXED, first=3, seed=0), "seed is 0, but only a sample is drawn by a seed"),
        (BenchmarkSpec(MIXED, sample=3, seed=-1), "seed is -1, but seeds are whole numbers"),
        (BenchmarkSpec(MIXED, sample=1_000_000), r"sample is 1000000, but chain-mixed has \d+ problems. Use at most"),
        (BenchmarkSpec(MIXED, rows="some"), "rows is 'some'"),
        (BenchmarkSpec(MIXED, rows="any"), r"rows is 'any', but .*chain-mixed\.jsonl is no copy of a built-in"),
        (BenchmarkSpec(f"AIME24={MIXED}", columns=(("id", "n"),)), "columns are for files of your own"),
    ],
)
def test_a_part_that_cannot_be_is_refused(spec: BenchmarkSpec, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_benchmark(spec)
