"""Benchmarks: each data set's real columns and quirks, files of one's own, and every way a row can be
wrong.
"""

import json
import math
import os
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from eval.benchmarks import BUILT_IN, load_benchmark, permutation_of
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


def row(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {"id": "a", "problem": "1+1?", "answer": "2"}
    return {key: value for key, value in {**base, **changes}.items() if value != "<absent>"}


def test_pins_are_full_commit_ids():
    assert list(BUILT_IN) == ["MATH-500", "AIME24", "AIME25", "AMC23", "GPQA-Diamond"]
    assert {name: source.count for name, source in BUILT_IN.items()} == {
        "MATH-500": 500, "AIME24": 30, "AIME25": 30, "AMC23": 40, "GPQA-Diamond": 198,
    }  # fmt: skip
    for source in BUILT_IN.values():
        assert re.fullmatch(r"[0-9a-f]{40}", source.revision)


def test_math500_keeps_latex_and_its_own_ids(tmp_path):
    benchmark = load_benchmark(f"MATH-500={jsonl(tmp_path / 'test.jsonl', MATH_ROW)}")
    (problem,) = benchmark.problems
    assert benchmark.name == "MATH-500"
    assert (problem.id, problem.kind) == ("test/precalculus/807.json", "math")
    assert problem.answer == "\\left( 3, \\frac{\\pi}{2} \\right)"
    assert benchmark.typical_tokens == BUILT_IN["MATH-500"].typical_tokens == 3_500


def test_aime24_parquet_with_leading_zeros_and_number_ids(tmp_path):
    parquet.write_table(pa.Table.from_pylist([AIME24_ROW]), tmp_path / "train.parquet")
    (problem,) = load_benchmark(f"AIME24={tmp_path / 'train.parquet'}").problems
    assert (problem.id, problem.answer, problem.kind) == ("60", "25", "integer")


def test_aime25_answer_with_a_degree_sign(tmp_path):
    (problem,) = load_benchmark(f"AIME25={jsonl(tmp_path / 'test.jsonl', AIME25_ROW)}").problems
    assert problem.answer == "336"


def test_amc23_floats_are_whole_numbers(tmp_path):
    rows = [AMC_ROW, {**AMC_ROW, "id": 1, "answer": "36"}, {**AMC_ROW, "id": 2, "answer": "45.0"}]
    problems = load_benchmark(f"AMC23={jsonl(tmp_path / 'test.jsonl', *rows)}").problems
    assert [(problem.id, problem.answer) for problem in problems] == [("0", "27"), ("1", "36"), ("2", "45")]


def test_gpqa_csv_with_newlines_permutes_and_stores_the_permutation(tmp_path):
    csv.write_csv(pa.Table.from_pylist([GPQA_ROW]), tmp_path / "gpqa_diamond.csv")
    (problem,) = load_benchmark(f"GPQA-Diamond={tmp_path / 'gpqa_diamond.csv'}").problems
    source = ("right", "w1", "w2", "w3")
    assert problem.text == "Which?\nPick."
    assert problem.choices == tuple(source[index] for index in problem.permutation)
    assert problem.choices["ABCD".index(problem.answer)] == "right"


def test_permutation_depends_on_question_and_seed_alone_and_is_uniform():
    assert permutation_of("rec1", 4, 0) == permutation_of("rec1", 4, 0)
    assert [permutation_of(f"q{i}", 4, 0) for i in range(3)] == [(2, 1, 0, 3), (1, 2, 3, 0), (3, 2, 0, 1)]
    slots = Counter(permutation_of(f"q{i}", 4, 0).index(0) for i in range(4000))
    expected = 1000
    chi_squared = sum((slots[slot] - expected) ** 2 / expected for slot in range(4))
    assert chi_squared < 16.3  # 0.999 quantile with three degrees of freedom
    assert any(permutation_of(f"q{i}", 4, 0) != permutation_of(f"q{i}", 4, 1) for i in range(5))


def test_dropping_an_item_does_not_reletter_the_rest(tmp_path):
    rows = [{**GPQA_ROW, "Record ID": f"rec{i}"} for i in range(6)]
    whole = load_benchmark(f"GPQA-Diamond={jsonl(tmp_path / 'a.jsonl', *rows)}").problems
    fewer = load_benchmark(f"GPQA-Diamond={jsonl(tmp_path / 'b.jsonl', *rows[1:])}").problems
    assert whole[1:] == fewer


def test_own_file_named_by_its_stem(tmp_path):
    benchmark = load_benchmark(
        str(
            jsonl(
                tmp_path / "mine.jsonl",
                row(),
                row(id=2, answer=7),
                row(id="c", answer="B", choices=["x", "y"]),
            )
        )
    )
    assert (benchmark.name, benchmark.typical_tokens) == ("mine", 4_000)
    assert [(p.id, p.answer, p.kind) for p in benchmark.problems] == [
        ("a", "2", "math"), ("2", "7", "math"), ("c", "B", "choice"),
    ]  # fmt: skip
    assert benchmark.problems[2].permutation is None


def test_own_choices_may_name_the_right_one_by_its_text(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", row(answer="blue", choices=["red", "blue"]))
    assert load_benchmark(str(path)).problems[0].answer == "B"


def test_line_separators_inside_json_strings_are_text(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row(problem="a\u2028b"), ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert load_benchmark(str(path)).problems[0].text == "a\u2028b"


def test_the_shipped_benchmarks_load():
    for path in sorted((ROOT / "examples" / "tiny").glob("chain-*.jsonl")):
        assert len(load_benchmark(str(path)).problems) >= 100


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "holds no problems"),
        ([row(), row()], "row 2: id 'a' is already used in row 1.*rename one"),
        ([row(id=1), row(id="1")], "row 2: id '1' is already used in row 1"),
        ([row(answer="<absent>")], "row 1: column 'answer' is missing"),
        ([row(answer="<absent>", anwser="2")], "Rename 'anwser'"),
        ([row(), row(id="b", answer=None)], "row 2: answer is None"),
        ([row(answer="  ")], "row 1: answer is '  '"),
        ([row(answer=True)], "row 1: answer is True"),
        ([row(answer=math.nan)], "row 1: answer is nan"),
        ([row(problem=7)], r"row 1: problem is 7 \(int\), but it must be text"),
        ([row(problem=" ")], "row 1: problem is empty"),
        ([row(id=None)], "row 1: id is empty"),
        ([row(choices=["x"])], "row 1: choices is .*2 to 26 texts"),
        ([row(choices="xy")], "row 1: choices is 'xy'"),
        ([row(choices=["x", "x"], answer="A")], "one text is listed twice"),
        ([row(choices=["x", "y"], answer="C")], "answer 'C' is neither one of the letters A to B"),
        (["text"], "line 1: a str where one object per line"),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_benchmark(str(jsonl(tmp_path / "mine.jsonl", *rows)))


def test_broken_json_names_the_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row()) + "\n{oops\n")
    with pytest.raises(ValueError, match=r"mine\.jsonl, line 2: not JSON"):
        load_benchmark(str(path))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("MATH500", r"neither a built-in .* nor a file.*Did you mean 'MATH-500'"),
        ("aime24", "Did you mean 'AIME24'"),
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


def test_an_unsupported_file_kind_is_named(tmp_path):
    path = tmp_path / "mine.xlsx"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"mine\.xlsx is not one of \.jsonl, \.parquet, \.csv"):
        load_benchmark(str(path))


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
