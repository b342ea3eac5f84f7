"""Who may import whom, and what planning a grid must not load.

Every arrow between two rooms (a package's folders and top files) is in one of the tables below. They are read both
ways: an import that no table allows fails, and so does an entry that no import needs any more.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES: Mapping[str, set[str]] = {
    "orchestrator": {"workers", "pruning", "eval"},
    "workers": {"pruning", "eval"},
    "pruning": set(),
    "eval": set(),
}
EVERYTHING = {
    "cli", "cluster", "console", "drill", "driver", "explain", "grid", "identity", "plan", "regrade",
    "results", "scheduler", "store",
}  # fmt: skip
ORCHESTRATOR = {
    # The strongest line: what decides knows neither store, plan, grid, clock nor Ray.
    "scheduler": set(),
    "grid": set(),
    "identity": set(),
    "console": set(),
    "store": {"identity"},
    "plan": {"console", "grid", "identity", "scheduler", "store"},
    "cli": {"console", "grid", "store"},
    "cluster": {"scheduler", "store"},
    "results": {"grid", "identity", "plan", "store"},
    "explain": {"console", "grid", "plan", "scheduler", "store"},
    "drill": {"cli", "cluster", "console", "grid", "store"},
    "regrade": {"console", "grid", "plan", "store"},
    "driver": {"cluster", "console", "grid", "plan", "results", "scheduler", "store"},
    "sweep": EVERYTHING,
    "evaluate": EVERYTHING | {"sweep"},
    "__main__": EVERYTHING | {"sweep", "evaluate"},
}
PRUNING = {
    "spec": set(),
    "files": set(),
    "prefetch": set(),
    "model": {"files", "prefetch", "spec"},
    "plugins": set(),
    "methods": {"model", "plugins", "spec"},
    "allocators": {"files", "methods", "model", "plugins", "spec"},
    "patch": {"files", "methods", "model", "prefetch", "spec"},
    "knobs": {"allocators", "methods", "spec"},
    "resolve": {"allocators", "knobs", "methods", "spec"},
    "prune": {"allocators", "files", "methods", "model", "patch", "resolve", "spec"},
    "__main__": {"allocators", "files", "knobs", "methods", "model", "patch", "prune", "resolve", "spec"},
}
ROOMS = {"orchestrator": ORCHESTRATOR, "pruning": PRUNING}
MAY_IMPORT_ANYTHING = {"sweep", "evaluate", "__main__"}
HEAVY = {
    "ray": {"orchestrator/cluster/ray_backend.py"},
    "vllm": {"workers/engines/vllm_engine.py", "workers/engines/swap_extension.py"},
    "mlflow": {"orchestrator/results/tracking.py"},
}
"""The files that import a heavy library; vLLM's second one is what vLLM itself loads into its worker."""
PURE = {"time", "datetime", "os", "socket", "subprocess", "threading", "random", "pathlib", "pyarrow", "ray", "torch"}
"""What reads a clock, a disk, a network or chance: nothing of it is imported by the scheduler."""
DOORWAY = "eval/__main__.py"
"""`python -m eval` needs an engine and a store, so its doorway hands over to the orchestrator. Nothing imports it."""
SOURCES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def path_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def module_of(file: Path) -> str:
    return path_of(file).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


MODULES = {module_of(file) for file in SOURCES}


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, `import_module("...")` included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write `from {file.parent.name}.x import y`"
            for alias in node.names:  # `from package import module` names a module, too
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.literal_eval(node.args[0])


def room_of(module: str) -> str:
    """`store` for orchestrator.store.files; the package's own `__init__` is ""."""
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("file", SOURCES, ids=path_of)
def test_package_imports_only_what_lies_below_it(file: Path) -> None:
    if path_of(file) == DOORWAY:
        assert set(imported(file)) - {"sys"} == {"eval.grade_command", "orchestrator.cli", "orchestrator.evaluate"}
        return
    package = file.relative_to(ROOT).parts[0]
    others = {module.split(".")[0] for module in imported(file)} & set(PACKAGES) - {package}
    assert others <= PACKAGES[package]


@pytest.mark.parametrize(("package", "room"), [(package, room) for package in ROOMS for room in ROOMS[package]])
def test_room_imports_what_its_table_says(package: str, room: str) -> None:
    inside = [file for file in SOURCES if path_of(file).startswith((f"{package}/{room}/", f"{package}/{room}.py"))]
    assert inside, f"{package} has no {room}: take it out of the table"
    used = {room_of(module) for file in inside for module in imported(file) if module.split(".")[0] == package}
    used -= {room, ""}
    assert used <= ROOMS[package][room], f"{package}/{room} may not import {sorted(used - ROOMS[package][room])}"
    if room not in MAY_IMPORT_ANYTHING:
        assert used == ROOMS[package][room], f"take {sorted(ROOMS[package][room] - used)} out of the table"


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_is_in_its_table(package: str) -> None:
    assert {room_of(module_of(file)) for file in SOURCES if path_of(file).startswith(f"{package}/")} - {""} == set(
        ROOMS[package]
    )


@pytest.mark.parametrize("file", [f for f in SOURCES if path_of(f).startswith("orchestrator/scheduler/")], ids=path_of)
def test_scheduler_knows_no_clock_disk_network_or_chance(file: Path) -> None:
    modules = set(imported(file))
    assert not {module.split(".")[0] for module in modules} & PURE
    assert not {module for module in modules if module.startswith(("eval", "pruning"))}


def test_no_circle_of_imports() -> None:
    needs = {module_of(file): set(imported(file)) & MODULES - {module_of(file)} for file in SOURCES}
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_library_is_imported_only_where_it_is_wrapped(library: str) -> None:
    users = {path_of(file) for file in SOURCES if library in {name.split(".")[0] for name in imported(file)}}
    assert users == HEAVY[library]


def test_planning_a_grid_loads_no_torch_vllm_ray_transformers_or_mlflow(tmp_path: Path) -> None:
    script = (
        "import sys; from orchestrator.__main__ import main; "
        f"status = main(['plan', 'examples/tiny/grid.yaml', '--store', {str(tmp_path / 'store')!r}]); "
        "heavy = {'torch', 'vllm', 'ray', 'transformers', 'mlflow'} & set(sys.modules); "
        "print('HEAVY', sorted(heavy)); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
