"""`python -m eval grade`: verdicts of a file of answers, for a person and for a script; files that are refused."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.grade_command import Case, main, read_case
from eval.grading import GradeItem, Verdict
from tests.support import ROOT

CASES = (
    {"text": "so \\boxed{\\frac{2}{4}}", "gold": "0.5", "right": "CORRECT", "source": "by hand"},
    {"text": "\\boxed{7}", "gold": "042", "kind": "integer", "right": "NOT_CORRECT"},
    {"text": "We cannot tell anything about this question, I am afraid.", "gold": "4", "right": "INCORRECT"},
    {"text": "B}.", "gold": "B", "kind": "choice", "choices": ["one", "two"], "cue": "The answer is \\boxed{"},
)
HANGS = {"text": "\\boxed{\\sum_{n=1}^{10^9} \\frac{1}{n}}", "gold": "4"}


def written(folder: Path, *cases: object) -> str:
    file = folder / "cases.jsonl"
    file.write_text("".join((case if isinstance(case, str) else json.dumps(case)) + "\n" for case in cases))
    return str(file)


def test_every_case_gets_a_line_and_the_verdicts_a_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(tmp_path, *CASES)]) == 0
    first, second, third, fourth, total, agreed = capsys.readouterr().out.splitlines()
    assert first.startswith("   1  CORRECT \\frac{2}{4} (")
    assert second.startswith("   2  INCORRECT 7 (")
    assert third.startswith("   3  UNPARSED [no-answer: ")
    assert third.endswith("  <- right: INCORRECT")
    assert fourth.startswith("   4  CORRECT B (")
    assert total.startswith("4 cases in ")
    assert total.endswith("s: 2 CORRECT, 1 INCORRECT, 1 UNPARSED")
    assert agreed == "2 of 3 as `right` says"


def test_script_gets_one_object_with_the_cases_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(tmp_path, *CASES, "", HANGS), "--json", "--seconds", "0.5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"cases", "seconds"}
    assert [case["verdict"] for case in told["cases"]] == ["CORRECT", "INCORRECT", "UNPARSED", "CORRECT", "INCORRECT"]
    assert {tuple(case) for case in told["cases"]} == {("verdict", "extracted", "cause", "rule")}
    assert told["cases"][-1]["cause"] == "timeout: 0.5 s of processor time were used up"
    assert told["seconds"] > 0.5


def test_grader_can_be_chosen_and_its_name_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, CASES[0])
    assert main([file, "--grader", "exact"]) == 0
    assert "INCORRECT" in capsys.readouterr().out
    assert main([file, "--grader", "exakt"]) == 2
    assert "Did you mean 'exact'?" in capsys.readouterr().err
    assert main([file, "--processes", "0"]) == 2
    assert "at least one worker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "this is not JSON"),
        ("[1]", "a case is a JSON object, not [1]"),
        ({"gold": "4"}, "the case has no text; add 'text'"),
        ({"text": "4"}, "the case has no gold; add 'gold'"),
        ({"text": "4", "gold": 4}, "gold must be a text, not 4; put it in quotes"),
        ({"text": "4", "gold": "4", "kind": "maths"}, "kind 'maths' is unknown; the kinds are math, integer, choice."),
        ({"text": "4", "gold": "x", "kind": "integer"}, "not a whole number"),
        ({"text": "A", "gold": "C", "kind": "choice", "choices": ["a", "b"]}, "one of its choices, which are A, B"),
        ({"text": "A", "gold": "A", "kind": "choice"}, "of which the case has none"),
        ({"text": "A", "gold": "A", "choices": "ab"}, "choices must be a list of texts"),
        ({"text": "A", "gold": "A", "right": "YES"}, "right 'YES' is no verdict"),
    ],
)
def test_bad_line_is_refused_with_its_number_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: object, complaint: str
) -> None:
    file = written(tmp_path, CASES[0], line)
    assert main([file]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {file}:2: ")
    assert complaint in said.err


def test_file_without_cases_or_out_of_reach_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: cannot be read: No such file" in capsys.readouterr().err
    assert main([written(tmp_path, "")]) == 2
    assert "there is no case" in capsys.readouterr().err
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "4", "gold": "4"}\n{"text": "\xe9", "gold": "4"}\n')
    assert main([str(tmp_path / "latin.jsonl")]) == 2
    assert "latin.jsonl:2: this is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "agreeing"),
    [("CORRECT", {"CORRECT"}), ("UNPARSED", {"UNPARSED"}), ("NOT_CORRECT", {"INCORRECT", "UNPARSED"})],
)
def test_right_says_which_verdicts_agree(right: str, agreeing: set[str]) -> None:
    verdicts: tuple[Verdict, ...] = ("CORRECT", "INCORRECT", "UNPARSED")
    case = read_case(json.dumps({"text": "4", "gold": "4", "right": right}))
    assert {verdict for verdict in verdicts if case.agrees(verdict)} == agreeing
    assert Case(GradeItem("4", "4")).agrees("CORRECT") is None


def test_module_grades_what_is_piped_and_still_evaluates_a_model() -> None:
    piped = json.dumps(CASES[0])
    command = [sys.executable, "-m", "eval"]
    graded = subprocess.run([*command, "grade", "-"], input=piped, cwd=ROOT, capture_output=True, text=True)
    assert (graded.returncode, graded.stderr) == (0, "")
    assert "1 case in " in graded.stdout
    other = subprocess.run([*command, "MODEL"], cwd=ROOT, capture_output=True, text=True)
    assert other.returncode == 2
    assert "--benchmark" in other.stderr


def test_standard_input_is_named_in_messages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    assert main(["-"]) == 2
    assert capsys.readouterr().err.startswith("error: standard input:1: this is not JSON")
