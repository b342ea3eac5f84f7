"""The package as it is installed: a wheel built from the tracked files, in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = ("orchestrator", "workers", "pruning", "eval")


def run(*command: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of an environment that holds the wheel, and the environment variables to use it with.

    The libraries come from this interpreter by PYTHONPATH, which reads no .pth file: an editable install of the
    checkout is not seen.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "environment"
    for name in run("git", "ls-files", *PACKAGES, "pyproject.toml", "README.md").splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", target)
    run(*pip, "--python", target / "bin" / "python", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return target, os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}


def test_wheel_holds_every_source_and_the_schema(installed: tuple[Path, dict[str, str]]) -> None:
    (site,) = (installed[0] / "lib").glob("python*/site-packages")
    tracked = run("git", "ls-files", *PACKAGES).split()
    assert [name for name in tracked if not (site / name).is_file()] == []


def test_installed_command_plans_a_grid(installed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, environment = installed
    where = run(folder / "bin" / "python", "-c", "import orchestrator; print(orchestrator.__file__)",
                cwd=tmp_path, environment=environment)  # fmt: skip
    assert Path(where).is_relative_to(folder)
    planned = run(folder / "bin" / "prunesweep", "plan", "examples/tiny/grid.yaml", "--store", tmp_path / "store",
                  environment=environment)  # fmt: skip
    assert planned.startswith("tiny: 25 cells")
