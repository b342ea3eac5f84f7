"""What counts as a difference between two stores."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.drill.compare_stores import compare_stores
from orchestrator.store.store import Store
from tests.support.builders import make_failure, make_grade, make_row


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Store, Store]:
    """Two stores with the same two draws and grades."""
    pair = Store.open(str(tmp_path / "undisturbed")), Store.open(str(tmp_path / "disturbed"))
    for store in pair:
        store.commit_draws([make_row(), make_row(prompt="p1")])
        store.commit_grades([make_grade(), make_grade("p1")])
    return pair


def differences(stores: tuple[Store, Store], folder: Path) -> dict[str, int]:
    found = compare_stores(*stores, folder)
    names = ("missing", "surplus", "repeated", "failures", "changed", "resampled")
    counts = {name: len(getattr(found, name)) for name in names}
    assert found.identical == (not any(n for name, n in counts.items() if name != "resampled"))
    return {name: n for name, n in counts.items() if n}


def test_same_rows_by_other_workers_at_other_times_are_the_same(stores: tuple[Store, Store], tmp_path: Path) -> None:
    late = replace(make_row(prompt="p2"), worker="engine-9", created_at=99.0)
    stores[0].commit_draws([make_row(prompt="p2")])
    stores[1].commit_draws([late])
    assert differences(stores, tmp_path) == {}


@pytest.mark.parametrize(
    ("happens", "found"),
    [
        (lambda undisturbed, _: undisturbed.commit_draws([make_row(prompt="p2")]), "missing"),
        (lambda undisturbed, _: undisturbed.commit_grades([make_grade("p2")]), "missing"),
        (lambda _, disturbed: disturbed.commit_draws([make_row(prompt="p2")]), "surplus"),
        (lambda _, disturbed: disturbed.commit_draws([make_row()]), "repeated"),
        (lambda _, disturbed: disturbed.commit_grades([make_grade()]), "repeated"),
        (lambda _, disturbed: disturbed.commit_failures([make_failure()]), "failures"),
    ],
)
def test_difference_is_found(stores: tuple[Store, Store], tmp_path: Path, happens, found: str) -> None:
    happens(*stores)
    assert differences(stores, tmp_path) == {found: 1}


def test_other_weights_are_a_change_and_other_tokens_are_said_apart(tmp_path: Path) -> None:
    undisturbed, disturbed = Store.open(str(tmp_path / "undisturbed")), Store.open(str(tmp_path / "disturbed"))
    undisturbed.commit_draws([make_row(), make_row(prompt="p1")])
    undisturbed.commit_grades([make_grade(), make_grade("p1")])
    disturbed.commit_draws([replace(make_row(), weights_digest="others"), make_row((9, 9, 9, 9), prompt="p1")])
    disturbed.commit_grades([make_grade(), replace(make_grade("p1"), verdict="INCORRECT")])
    assert differences((undisturbed, disturbed), tmp_path) == {"changed": 1, "resampled": 1}
    told = "\n".join(compare_stores(undisturbed, disturbed, tmp_path).lines())
    assert "1 of 2 draws have other tokens" in told
    assert "c/answers/p0/0/0: weights_digest" in told


def test_verdict_that_a_grader_came_to_at_last_is_the_one_that_counts(
    stores: tuple[Store, Store], tmp_path: Path
) -> None:
    stores[0].commit_grades([make_grade("p2")])
    failed = replace(make_grade("p2"), verdict="UNPARSED", extracted="", cause="crash: killed")
    stores[1].commit_grades([failed])
    assert differences(stores, tmp_path) == {"missing": 1}
    stores[1].commit_grades([make_grade("p2")])
    assert differences(stores, tmp_path) == {}
    assert compare_stores(*stores, tmp_path).grader_retries == 1
