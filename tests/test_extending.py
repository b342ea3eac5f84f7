"""The worked examples of docs/extending.md, applied as they stand there to a copy of the sources and run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pruning.spec import PruneSpec
from tests.support import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
MODEL = ROOT / "examples" / "tiny" / "model"
PRODUCT = ("eval", "orchestrator", "pruning", "workers")
FILES = {
    "Add a score method": ["pruning/methods/__init__.py", "pruning/methods/lamp.py"],
    "Add an allocator": ["pruning/allocators/__init__.py", "pruning/allocators/atp.py"],
    "Add a benchmark": ["eval/built_in.py"],
    "Add a thinking format": ["eval/formats.py"],
    "Add a budget mode": ["eval/modes/__init__.py", "eval/modes/bare_end.py"],
    "Add a grader": ["eval/grading.py"],
}
STEP = re.compile(
    r"^`(?P<new>[\w/]+\.py)`:\n\n```python\n(?P<code>.*?)```"
    r"|^In `(?P<file>[\w/]+\.py)`"
    r"|^```diff\n(?P<diff>.*?)```",
    re.MULTILINE | re.DOTALL,
)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def apply(title: str, checkout: Path) -> None:
    """Write the section's new files, and make its edits to the files that it names."""
    edited = checkout
    for step in STEP.finditer(section(title)):
        if step["new"]:
            (checkout / step["new"]).write_text(step["code"], encoding="utf-8")
        elif step["file"]:
            edited = checkout / step["file"]
        else:
            lines = step["diff"].splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            content = edited.read_text(encoding="utf-8")
            assert content.count(before) == 1, before
            edited.write_text(content.replace(before, after), encoding="utf-8")


def differing(checkout: Path) -> list[str]:
    """Product files of the copy that are new or changed."""
    files = (file for package in PRODUCT for file in (checkout / package).rglob("*") if file.is_file())
    names = (file.relative_to(checkout) for file in files if "__pycache__" not in file.parts)
    return sorted(
        str(name)
        for name in names
        if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != (checkout / name).read_bytes()
    )


def run(checkout: Path, *command: str) -> str:
    """Standard output of Python in the copy, with `command`."""
    # PYTHONPATH: the copy must win over the checkout that is installed in this environment.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def evaluated(checkout: Path, program: str) -> object:
    """What `program` prints as JSON, in the copy."""
    guard = "import eval, pathlib\nassert pathlib.Path(eval.__file__).is_relative_to(pathlib.Path.cwd())\n"
    return json.loads(run(checkout, "-c", "import json\n" + guard + program))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    for package in (*PRODUCT, "tests/support"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.parametrize("title", FILES)
def test_example_touches_the_files_that_the_page_promises(title: str, checkout: Path) -> None:
    assert differing(checkout) == []
    apply(title, checkout)
    assert differing(checkout) == FILES[title]
    name = title.removeprefix("Add an ").removeprefix("Add a ")
    assert f"| {name} | {len(FILES[title])} |" in PAGE


PRUNINGS = {"Add a score method": PruneSpec("lamp", "uniform"), "Add an allocator": PruneSpec("magnitude", "atp")}


@pytest.mark.parametrize("title", PRUNINGS)
def test_method_and_allocator_prune_to_the_sparsity_asked_for(title: str, checkout: Path, tmp_path: Path) -> None:
    spec = PRUNINGS[title]
    apply(title, checkout)
    (shown,) = re.findall(r"^python -m (pruning MODEL_DIR .*)$", section(title), re.MULTILINE)
    arguments = shown.replace("MODEL_DIR", str(MODEL)).replace("out/patch", str(tmp_path / "patch")).split()
    report = json.loads(run(checkout, "-m", *arguments))
    assert (report["method"], report["allocator"]) == (spec.method, spec.allocator)
    assert report["sparsity"]["realised"] == pytest.approx(0.5, abs=2e-3)
    by_layer = [layer["realised"] for layer in report["layers"]]
    if spec.allocator == "atp":
        assert by_layer == sorted(by_layer)
        assert by_layer[0] == pytest.approx(0.35, abs=2e-3)
        assert by_layer[-1] == pytest.approx(0.65, abs=2e-3)
    else:
        assert max(by_layer) - min(by_layer) > 1e-3, "LAMP gives each layer a sparsity of its own"


@pytest.mark.parametrize("title", PRUNINGS)
def test_table_with_the_example_is_read_without_torch(title: str, checkout: Path) -> None:
    apply(title, checkout)
    spec = PRUNINGS[title]
    heavy = evaluated(
        checkout,
        "import sys\n"
        "from pruning.resolve import resolve\n"
        "from pruning.spec import PruneSpec\n"
        f"resolve(PruneSpec({spec.method!r}, {spec.allocator!r}, 0.5))\n"
        "print(json.dumps(sorted({'torch', 'scipy'} & sys.modules.keys())))",
    )
    assert heavy == []


def test_benchmark_is_loaded_by_its_columns(checkout: Path) -> None:
    apply("Add a benchmark", checkout)
    rows = [{"number": n, "question": f"What is {n} x 5?", "final_answer": f"0{n * 5}"} for n in range(60)]
    (checkout / "olympiad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = evaluated(
        checkout,
        "from eval.benchmarks import load_benchmark\n"
        "benchmark = load_benchmark('Olympiad-25=olympiad.jsonl')\n"
        "problem = benchmark.problems[5]\n"
        "print(json.dumps([benchmark.name, benchmark.typical_tokens, problem.id, problem.text, problem.answer]))",
    )
    assert loaded == ["Olympiad-25", 8000, "5", "What is 5 x 5?", "25"]


def test_thinking_format_is_named_expressed_in_tokens_and_in_the_help(checkout: Path) -> None:
    apply("Add a thinking format", checkout)
    texts = evaluated(
        checkout,
        "from eval.formats import named_format, tags\n"
        "from eval.prompts import ChatTokenizer\n"
        f"tokenizer = ChatTokenizer.load({str(MODEL)!r})\n"
        "found = tags(tokenizer, named_format('xml'))\n"
        "print(json.dumps([tokenizer.decode(found.end), tokenizer.decode(found.early_stop)]))",
    )
    assert texts == ["</reasoning>", "\n</reasoning>\n<answer>\n"]
    assert re.search(r"how the model thinks: .*\bxml\b", " ".join(run(checkout, "-m", "eval", "--help").split()))


def test_budget_mode_decodes_and_is_planned_under_a_name_of_its_own(checkout: Path) -> None:
    apply("Add a budget mode", checkout)
    decoded = evaluated(
        checkout,
        "from eval.draws import DrawJob\n"
        "from eval.formats import ThinkingFormat\n"
        "from eval.modes import make_rules\n"
        "from eval.rules import room_to_think\n"
        "from eval.spec import BudgetSpec\n"
        "from tests.support.scripted_model import EOS, PieceCodec, Script, run\n"
        "codec, job = PieceCodec(), DrawJob('p1', (4, 5), 7, (3, 9))\n"
        "style = ThinkingFormat('own', start='<think>', end='</think>', early_stop='stop now</think>')\n"
        "end, text = codec.ids['</think>'], tuple(codec.encode('stop now</think>'))\n"
        "found = {}\n"
        "for mode in ('native-strict', 'bare-end'):\n"
        "    rules = make_rules(BudgetSpec(mode, answer_tokens=8), codec, frozenset({EOS}), 100, style)\n"
        "    draw, asked = run(rules, job, Script((4, 4, 4, 4, end), (6, EOS)).complete)\n"
        "    prompts = {ask.name: ask.prompt_ids for ask in asked}\n"
        "    assert prompts['answer@5'] == (4, 5, 4, 4, 4, 4, end)\n"
        "    forced = prompts['answer@3'][5:]\n"
        "    found[mode] = [forced == (end,), forced == text, 100 - room_to_think(rules, job) - 2 - 8 == len(forced)]\n"
        "print(json.dumps(found))",
    )
    assert decoded == {"native-strict": [False, True, True], "bare-end": [True, False, True]}

    problem = {"id": "1", "problem": "3+4", "answer": "7"}
    (checkout / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    grid = {
        "name": "modes", "store": "store", "models": [str(MODEL)], "variants": [{"method": "dense"}],
        "token_limits": [8], "benchmarks": ["problems.jsonl"], "sampling": {"temperature": 0.0},
    }  # fmt: skip
    for mode in ("native-strict", "bare-end"):
        budget = {"mode": mode, "answer_tokens": 8}
        (checkout / f"{mode}.yaml").write_text(json.dumps({**grid, "budget": budget}))
    # JSON is YAML, too.
    assert "1 cell" in run(checkout, "-m", "orchestrator", "plan", "bare-end.yaml")
    names = evaluated(
        checkout,
        "from orchestrator.grid.parse import read_grid\n"
        "from orchestrator.plan.resolve import resolve_grid\n"
        "modes = ('native-strict', 'bare-end')\n"
        "grids = [resolve_grid(read_grid(pathlib.Path(mode + '.yaml'))) for mode in modes]\n"
        "contexts = [grid.variants[0].decodings[0].context for grid in grids]\n"
        "modes = [[grid.payloads[name]['mode'] for name in (c.context_id, c.answer_context_id)]\n"
        "         for grid, c in zip(grids, contexts)]\n"
        "traces, answers = ({c.context_id for c in contexts}, {c.answer_context_id for c in contexts})\n"
        "print(json.dumps([modes, len(traces), len(answers)]))",
    )
    assert names == [[["native-strict"] * 2, ["bare-end"] * 2], 2, 2]


def test_grader_grades_in_its_child_process(checkout: Path) -> None:
    apply("Add a grader", checkout)
    verdicts = evaluated(
        checkout,
        "from eval.grader_pool import GraderPool\n"
        "from eval.grading import GradeItem, grader_id\n"
        "items = [GradeItem(text, '9.81') for text in ('\\\\boxed{9.8}', '\\\\boxed{9.6}', 'I am not sure.')]\n"
        "with GraderPool(workers=1) as pool:\n"
        "    grades = pool.grade_many(items, 'one-percent')\n"
        "print(json.dumps([grader_id('one-percent'), [grade.verdict for grade in grades]]))",
    )
    assert verdicts == ["one-percent@1", ["CORRECT", "INCORRECT", "UNPARSED"]]
