"""Who may import whom, and what planning a grid must not load. The rules are design.md's."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = ("orchestrator", "workers", "pruning", "eval")
ALLOWED = {
    "orchestrator": {"orchestrator", "workers", "pruning", "eval"},
    "workers": {"workers", "pruning", "eval"},
    "pruning": {"pruning"},
    "eval": {"eval"},
}
ONE_FILE = {
    "ray": "orchestrator/cluster/ray_backend.py",
    "vllm": "workers/engines/vllm_engine.py",
    "mlflow": "orchestrator/results/tracking.py",
}
SOURCES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, `import_module("...")` included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write `from {file.parent.name}.x import y`"
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.add(ast.literal_eval(node.args[0]))
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_package_imports_only_what_lies_below_it(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    # The one exception: `python -m eval` needs an engine, so it hands over to the orchestrator. Nothing imports it.
    if file.relative_to(ROOT).as_posix() == "eval/__main__.py":
        assert imported(file) == {"sys", "orchestrator.evaluate"}
        return
    roots = {module.split(".")[0] for module in imported(file)}
    assert roots & set(PACKAGES) <= ALLOWED[package]


@pytest.mark.parametrize("library", ONE_FILE)
def test_heavy_library_is_imported_in_one_file(library: str) -> None:
    users = {
        str(file.relative_to(ROOT)) for file in SOURCES if library in {name.split(".")[0] for name in imported(file)}
    }
    assert users == {ONE_FILE[library]}


def test_planning_a_grid_loads_no_torch_vllm_ray_transformers_or_mlflow(tmp_path: Path) -> None:
    script = (
        "import sys; from orchestrator.__main__ import main; "
        f"status = main(['plan', 'examples/tiny/grid.yaml', '--store', {str(tmp_path / 'store')!r}]); "
        "heavy = {'torch', 'vllm', 'ray', 'transformers', 'mlflow'} & set(sys.modules); "
        "print('HEAVY', sorted(heavy)); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_every_source_is_checked() -> None:
    assert len(SOURCES) > 60
    assert {file.relative_to(ROOT).parts[0] for file in SOURCES} == set(PACKAGES)
