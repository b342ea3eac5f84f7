"""How the code and its tests are laid out: small folders, names that mean one thing, tests that can be found."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = ("orchestrator", "workers", "pruning", "eval")
SOURCES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
MODULES = [file for file in SOURCES if file.name != "__init__.py"]
FOLDERS = sorted({file.parent for file in SOURCES})
LARGEST_FOLDER = 14
FLAT = {"eval"}
"""Its 17 names are the field's, and a reader looks for them in one place."""

COVERED_ELSEWHERE: dict[str, str] = {}
"""A product file without a test file of its name -> the tests that cover it."""


def path_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_orchestrator_shows_eight_files_and_nine_folders() -> None:
    inside = [path for path in (ROOT / "orchestrator").iterdir() if path.name not in ("__init__.py", "__pycache__")]
    assert sum(path.is_file() for path in inside) <= 8
    assert sum(path.is_dir() for path in inside) == 9


@pytest.mark.parametrize("folder", FOLDERS, ids=path_of)
def test_folder_is_small_enough_to_know(folder: Path) -> None:
    if path_of(folder) not in FLAT:
        assert len(list(folder.glob("*.py"))) <= LARGEST_FOLDER


def test_no_class_name_stands_in_two_files() -> None:
    places = defaultdict(set)
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(path_of(file))
    assert {name: sorted(files) for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize("file", MODULES, ids=path_of)
def test_file_has_tests_where_one_looks_for_them(file: Path) -> None:
    """`tests/<its folder>/test_<its name>.py`, or an entry that says where, which the other then makes superfluous."""
    own = ROOT / "tests" / file.relative_to(ROOT).with_name(f"test_{file.name}")
    named = COVERED_ELSEWHERE.get(path_of(file))
    assert own.is_file() != (named is not None), f"add {path_of(own)}, or say in COVERED_ELSEWHERE what covers it"
    assert named is None or (ROOT / named).exists(), f"{named} is not there"


def test_every_exception_is_of_a_file_that_exists() -> None:
    assert [name for name in COVERED_ELSEWHERE if not (ROOT / name).is_file()] == []
