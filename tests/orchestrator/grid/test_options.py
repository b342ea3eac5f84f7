"""`python -m eval` sets what a grid sets, and its errors speak of its own options."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.spec import BenchmarkSpec
from orchestrator.evaluate import main
from orchestrator.grid.format import BudgetEntry, ModelEntry, PromptEntry, SamplingEntry
from orchestrator.grid.options import OPTIONS, eval_parser, options_source
from orchestrator.grid.parse import Grid, parse_grid, read_grid
from tests.support import ROOT

MIXED = "examples/tiny/chain-mixed.jsonl"
MODEL = "examples/tiny/model"
SECTIONS = {"models": ModelEntry, "prompt": PromptEntry, "sampling": SamplingEntry, "budget": BudgetEntry}


def grid_of(*options: str) -> Grid:
    return parse_grid(options_source(eval_parser().parse_args([MODEL, "--output", "out", *options])))


def as_written(text: str, folder: Path) -> Grid:
    (folder / "grid.yaml").write_text(text, encoding="utf-8")
    return read_grid(folder / "grid.yaml")


def test_every_setting_of_a_grid_has_an_option() -> None:
    keys = {f"{section}.{field}" for section, entry in SECTIONS.items() for field in entry.model_fields}
    assert keys - {"models.path"} <= OPTIONS.keys()
    known = eval_parser().format_help()
    assert [option for option in OPTIONS.values() if option not in known] == []


def test_options_left_out_are_the_defaults_of_a_grid(tmp_path: Path) -> None:
    grid = as_written(
        f"{{name: eval, store: out, models: [{MODEL}], variants: [{{method: dense}}], token_limits: [8, 16], "
        f"benchmarks: [{MIXED}], sampling: {{temperature: 0.0}}, runtime: {{engines: 1}}, "
        "budget: {mode: native-strict, answer_tokens: 1024}}",
        tmp_path,
    )
    options = grid_of("--benchmark", MIXED, "--limits", "8,16")
    assert replace(options, source=grid.source) == grid


def test_all_options_together_are_the_grid_that_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("You are terse: {}\n", encoding="utf-8")
    (tmp_path / "format.yaml").write_text('{start: <t>, end: </t>, early_stop: "\\n</t>\\n"}', encoding="utf-8")
    grid = as_written(
        f"""
name: eval
store: out
models: [{{path: {MODEL}, dtype: float32, format: {{start: <t>, end: </t>, early_stop: "\\n</t>\\n"}}}}]
variants: [{{method: dense}}]
token_limits: [8, 16]
benchmarks: [{{name: {MIXED}, first: 7}}, {{name: MATH-500, columns: {{id: idx}}, first: 7}}]
prompt: {{template: "Q: {{problem}}\\n", system: "You are terse: {{}}"}}
sampling: {{temperature: 0.7, top_p: 0.9, top_k: 20, min_p: 0.05, seeds: [3, 4]}}
budget: {{mode: s1-legacy, answer_tokens: 9, wait: 2, wait_text: Hmm, independent_limits: true}}
runtime: {{engines: 1, grader: exact, max_sequences: 4}}
""",
        tmp_path,
    )
    options = grid_of(
        *("--benchmark", MIXED, "--benchmark", "{name: MATH-500, columns: {id: idx}}", "--first", "7"),
        *("--limits", "16,8", "--dtype", "float32", "--format", f"@{tmp_path / 'format.yaml'}"),
        *("--template", "Q: {problem}\n", "--system", f"@{tmp_path / 'system.txt'}"),
        *("--temperature", "0.7", "--top-p", "0.9", "--top-k", "20", "--min-p", "0.05", "--seeds", "3,4"),
        *("--budget", "s1-legacy", "--answer-tokens", "9", "--wait", "2", "--wait-text", "Hmm"),
        *("--independent-limits", "--runtime", "{grader: exact, max_sequences: 4}"),
    )
    assert replace(options, source=grid.source, variants=()) == replace(grid, variants=())
    (ours,), (theirs,) = options.variants, grid.variants
    assert (ours.model, ours.spec) == (theirs.model, theirs.spec)


def test_a_benchmark_in_yaml_has_its_own_part() -> None:
    part = "{name: MATH-500, sample: 50, seed: 1}"
    assert grid_of("--benchmark", part, "--limits", "8").benchmarks == (BenchmarkSpec("MATH-500", sample=50, seed=1),)


FAULTS: dict[str, tuple[list[str], str]] = {
    "preset": (["--prompt", "box"], r"^--prompt is 'box'.*Or write your own as --template\. Did you mean 'boxed'"),
    "preset and template": (["--prompt", "boxed", "--template", "{problem}"], "^--prompt is 'boxed', but a template"),
    "template": (["--template", "x"], r"^--template is 'x', but it does not contain \{problem\}"),
    "system": (["--system", "x"], r"^--benchmark: problem 'mixed-000': .*Drop --system"),
    "format": (["--format", "qwen"], "^--format is 'qwen'.*Did you mean 'qwen3'.*Or give start, end and early_stop"),
    "format's keys": (
        ["--format", "{start: a, ned: b, early_stop: c}"],
        r"^--format: end: this key is required; add it\nerror: --format: ned: unknown key\. Did you mean 'end'",
    ),
    "format's tags": (
        ["--format", "{start: <t>, end: </t>, early_stop: </t>, single_tokens: true}"],
        r"^MODEL_DIR: format 'custom': its start tag '<t>' is not a token .* Set --format to the format",
    ),
    "format's file": (["--format", "@none.yaml"], "^--format: none.yaml: cannot be read .*No such file"),
    "format's YAML": (["--format", "{start: <t>"], r"^--format: \{start: <t>: not valid YAML: .*quote texts"),
    "greedy with seeds": (["--seeds", "0,1"], "^--seeds is .*greedy.*Keep one seed, or set --temperature above 0"),
    "temperature": (["--temperature", "-1"], "^--temperature is -1.0"),
    "top-p": (["--top-p", "2"], "^--top-p is 2.0"),
    "top-k": (["--top-k", "-1"], "^--top-k is -1"),
    "min-p": (["--min-p", "1"], "^--min-p is 1.0"),
    "limits": (["--limits", "8,8"], "^--limits is .*, but one limit is listed twice"),
    "context": (["--limits", "1000", "--answer-tokens", "8"], "^--limits: limit 1000 does not fit"),
    "answer's length": (["--limits", "8"], "^--benchmark: problem .* leaves no room .*lower --answer-tokens"),
    "wait": (["--wait", "1"], "^--wait is 1, but only s1-legacy .*Set --budget to s1-legacy, or drop --wait"),
    "answer": (["--budget", "none", "--answer-tokens", "8"], "^--answer-tokens is 8, but mode none has no answer"),
    "first of a part": (
        ["--first", "2", "--benchmark", f"{{name: {MIXED}, first: 3}}"],
        "^--first: the benchmark .* has a part of its own",
    ),
    "first": (["--first", "101"], "^--benchmark: first is 101, but chain-mixed has 100 problems"),
    "benchmark's keys": (
        ["--benchmark", "{name: x.jsonl, frist: 3}"],
        r"^--benchmark: frist: unknown key\. Did you mean 'first'",
    ),
    "benchmark": (["--benchmark", "math500"], "^--benchmark: benchmark 'math500' is neither.*'MATH-500'"),
    "copy": (["--benchmark", f"aime24={MIXED}"], r"^--benchmark: AIME24: .*\{name: AIME24=.*, rows: any\}"),
    "runtime": (
        ["--runtime", "{tensor_paralel: 2}"],
        "^--runtime: tensor_paralel: unknown key. Did you mean",
    ),
    "runtime's type": (["--runtime", "2"], "^--runtime: '2' is no mapping"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_names_only_options_that_there_are(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, expected = FAULTS[fault]
    monkeypatch.chdir(ROOT)
    store = tmp_path / "store"
    usual = [] if "--limits" in options else ["--limits", "8"]
    status = main([MODEL, "--output", str(store), "--benchmark", MIXED, *usual, *options])
    message = capsys.readouterr().err.strip()
    assert status == 2
    assert re.search(expected, message.removeprefix("error: ")), message
    known: dict[str, Any] = eval_parser()._option_string_actions
    assert [word for word in re.findall(r"--[a-z][\w-]*", message) if word not in known] == []
    assert not re.search(r"\b(models|sampling|prompt|budget|runtime|benchmarks)(\[\d*\])?\.\w|token_limits", message)
    assert not (store / "draws").exists(), "nothing was started"


@pytest.mark.parametrize("text", ["a", "1,", "1.5"])
def test_numbers_that_are_none_are_refused_by_name(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([MODEL, "--output", "out", "--benchmark", MIXED, "--limits", text])
    assert ended.value.code == 2
    assert f"argument --limits: {text!r} is not whole numbers with commas between" in capsys.readouterr().err
