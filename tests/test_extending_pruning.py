"""The worked examples of docs/extending-pruning.md, applied as they stand there to a copy of the sources and run."""

from __future__ import annotations

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

PAGE = (ROOT / "docs" / "extending-pruning.md").read_text(encoding="utf-8")
MODEL = ROOT / "examples" / "tiny" / "model"


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def apply(text: str, checkout: Path) -> None:
    """Write the section's new file and make its edits to the registry."""
    ((name, code),) = re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)```", text, re.M | re.S)
    (checkout / name).write_text(code, encoding="utf-8")
    (registry,) = re.findall(r"^In `([\w/]+\.py)`", text, re.M)
    content = (checkout / registry).read_text(encoding="utf-8")
    for diff in re.findall(r"```diff\n(.*?)```", text, re.S):
        lines = diff.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        assert content.count(before) == 1, before
        content = content.replace(before, after)
    (checkout / registry).write_text(content, encoding="utf-8")


def differing(checkout: Path) -> list[str]:
    """Product files of the copy that are new or changed."""
    return sorted(
        str(file.relative_to(checkout))
        for file in (checkout / "pruning").rglob("*.py")
        if not (ROOT / file.relative_to(checkout)).is_file()
        or file.read_bytes() != (ROOT / file.relative_to(checkout)).read_bytes()
    )


def run(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # PYTHONPATH: the copy must win over the checkout that is installed in this environment.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    return subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "pruning", tmp_path / "checkout" / "pruning", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "checkout"


EXAMPLES = {
    "Add a score method": (["pruning/methods/__init__.py", "pruning/methods/lamp.py"], PruneSpec("lamp", "uniform")),
    "Add an allocator": (
        ["pruning/allocators/__init__.py", "pruning/allocators/atp.py"],
        PruneSpec("magnitude", "atp"),
    ),
}


@pytest.mark.parametrize("title", EXAMPLES)
def test_example_takes_two_files_and_prunes_to_the_sparsity_asked_for(title: str, checkout: Path, tmp_path: Path):
    files, spec = EXAMPLES[title]
    apply(section(title), checkout)
    assert differing(checkout) == files
    (shown,) = re.findall(r"^python -m (pruning MODEL_DIR .*)$", section(title), re.M)
    arguments = shown.replace("MODEL_DIR", str(MODEL)).replace("out/patch", str(tmp_path / "patch")).split()
    done = run(checkout, "-m", *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["method"], report["allocator"]) == (spec.method, spec.allocator)
    assert report["sparsity"]["realised"] == pytest.approx(0.5, abs=2e-3)
    by_layer = [layer["realised"] for layer in report["layers"]]
    if spec.allocator == "atp":
        assert by_layer == sorted(by_layer)
        assert by_layer[0] == pytest.approx(0.35, abs=2e-3)
        assert by_layer[-1] == pytest.approx(0.65, abs=2e-3)
    else:
        assert max(by_layer) - min(by_layer) > 1e-3, "LAMP gives each layer a sparsity of its own"


@pytest.mark.parametrize("title", EXAMPLES)
def test_table_with_the_example_is_read_without_torch(title: str, checkout: Path):
    apply(section(title), checkout)
    _, spec = EXAMPLES[title]
    program = (
        "import sys; from pruning.resolve import resolve; from pruning.spec import PruneSpec; import pruning; "
        f"print(resolve(PruneSpec({spec.method!r}, {spec.allocator!r}, 0.5)), pruning.__file__); "
        "sys.exit(bool({'torch', 'scipy'} & sys.modules.keys()))"
    )
    done = run(checkout, "-c", program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(checkout) in done.stdout
