"""Rows of one's own become problems by rules, each of which is named when it is broken; choices are shuffled by id."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from eval.benchmarks import load_benchmark
from eval.problems import permutation_of
from eval.spec import BenchmarkSpec


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {"id": "a", "problem": "1+1?", "answer": "2"}
    return {key: value for key, value in {**base, **changes}.items() if value != "<absent>"}


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


def test_permutation_depends_on_question_and_seed_alone_and_is_uniform():
    assert permutation_of("rec1", 4, 0) == permutation_of("rec1", 4, 0)
    assert [permutation_of(f"q{i}", 4, 0) for i in range(3)] == [(2, 1, 0, 3), (1, 2, 3, 0), (3, 2, 0, 1)]
    slots = Counter(permutation_of(f"q{i}", 4, 0).index(0) for i in range(4000))
    expected = 1000
    chi_squared = sum((slots[slot] - expected) ** 2 / expected for slot in range(4))
    assert chi_squared < 16.3  # 0.999 quantile with three degrees of freedom
    assert any(permutation_of(f"q{i}", 4, 0) != permutation_of(f"q{i}", 4, 1) for i in range(5))


# --- columns of other names -----------------------------------------------------------------------------


def test_columns_of_other_names_are_read_under_ours(tmp_path: Path) -> None:
    rows = [{"idx": 3, "question": "Which?", "gold": "B", "options": ["x", "y"], "answer": "not this"}]
    names = {"id": "idx", "problem": "question", "answer": "gold", "choices": "options"}
    (problem,) = load_benchmark(
        BenchmarkSpec(str(jsonl(tmp_path / "f.jsonl", *rows)), columns=tuple(names.items()))
    ).problems
    assert (problem.id, problem.text, problem.answer, problem.choices) == ("3", "Which?", "B", ("x", "y"))


def test_a_column_that_is_not_there_is_named_with_what_it_should_be(tmp_path: Path) -> None:
    path = str(jsonl(tmp_path / "f.jsonl", {"idx": 3, "question": "Which?", "answer": "B"}))
    with pytest.raises(
        ValueError, match=r"column 'questoin', which columns gives as the problem, is missing.*question"
    ):
        load_benchmark(BenchmarkSpec(path, columns=(("id", "idx"), ("problem", "questoin"))))
    with pytest.raises(ValueError, match=r"'id' is missing.*columns: \{id: \.\.\.\} \(found idx, question, answer\)"):
        load_benchmark(path)


# --- CSV ------------------------------------------------------------------------------------------------


def csv_file(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_answers_of_a_csv_file_are_what_is_written(tmp_path: Path) -> None:
    answers = ["007", '"007"', "1e3", "1.0", "+5", '"1,200"']
    lines = [f"{number:03},What?,{answer}" for number, answer in enumerate(answers)]
    problems = load_benchmark(csv_file(tmp_path / "f.csv", "id,problem,answer", *lines)).problems
    assert [problem.answer for problem in problems] == ["007", "007", "1e3", "1.0", "+5", "1,200"]
    assert [problem.id for problem in problems] == ["000", "001", "002", "003", "004", "005"]


def test_choices_of_a_csv_file_are_a_json_list_and_an_empty_cell_is_an_open_question(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "f.csv", "id,problem,answer,choices", '1,Which?,blue,"[""red"", ""blue""]"', "2,What is 3 + 4?,7,"
    )
    first, second = load_benchmark(path).problems
    assert (first.answer, first.choices, first.kind) == ("B", ("red", "blue"), "choice")
    assert (second.answer, second.choices, second.kind) == ("7", None, "math")


def test_choices_that_are_no_json_list_are_refused_with_what_to_write(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "f.csv", "id,problem,answer,choices", "1,Which?,blue,red|blue")
    with pytest.raises(ValueError, match=r"row 1: choices is 'red\|blue'.*in CSV: a JSON list, such as"):
        load_benchmark(path)


def test_an_empty_answer_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 1: answer is ''"):
        load_benchmark(csv_file(tmp_path / "f.csv", "id,problem,answer", "1,Which?,"))
