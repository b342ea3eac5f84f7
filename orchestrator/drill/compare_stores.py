"""Whether two stores hold the same results: compares rows of the same key, read only.

Which worker made a row, and when, is not compared. Failed gradings are ignored: only conclusive verdicts are compared.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from eval.grading import Grade
from orchestrator.store.store import Store
from pruning.patch.manifest import read_manifest

DRAW = ("context_id", "answer_context_id", "prompt_id", "seed", "start")
GRADE = ("context_id", "answer_context_id", "prompt_id", "seed", "cut", "gold_id", "grader")
BY_WHOM = ("worker", "created_at")
SAMPLED = ("trace_ids", "trace_text", "ended", "answers")
"""Columns in which an engine that is not bit-identical may differ from run to run."""
NAMED = 5

Row = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class StoreComparison:
    """What a comparison found; each difference is a line that names its row."""

    draws: int
    grades: int
    patches: int
    """How many of the first store were compared."""
    missing: tuple[str, ...]
    """In the first store and not in the second."""
    surplus: tuple[str, ...]
    """In the second and not in the first."""
    repeated: tuple[str, ...]
    """Stored more than once in the second."""
    failures: tuple[str, ...]
    """Recorded as given up in the second."""
    changed: tuple[str, ...]
    """Different in more than what an engine samples."""
    resampled: tuple[str, ...]
    """Draws that differ in their tokens only: the engine is not bit-identical."""
    grader_retries: int
    """Failed gradings in the second store."""

    @property
    def identical(self) -> bool:
        """Whether nothing is lost, repeated, given up or changed; check `resampled` as well."""
        return not (self.missing or self.surplus or self.repeated or self.failures or self.changed)

    def lines(self) -> list[str]:
        """The report for a person: what was compared and what differs, the first few by name."""
        lines = [f"compared {self.draws} draws, {self.grades} grades and {self.patches} patches, row by row"]
        for found, about in (
            (self.missing, "missing after the disturbed run"),
            (self.surplus, "only in the disturbed run"),
            (self.repeated, "stored more than once"),
            (self.failures, "given up"),
            (self.changed, "different"),
        ):
            lines += [f"{len(found)} {about}:", *(f"  {line}" for line in found[:NAMED])] if found else []
        if self.resampled:
            lines.append(
                f"{len(self.resampled)} of {self.draws} draws have other tokens, at temperature 0: this engine is not "
                "bit-identical from run to run. For them and their grades, only presence, uniqueness and weights "
                "were compared. The first: " + self.resampled[0]
            )
        if self.grader_retries:
            lines.append(f"{self.grader_retries} gradings failed and were done again")
        return lines


def compare_stores(undisturbed: Store, disturbed: Store, cache: Path) -> StoreComparison:
    """Compare what two runs of one grid stored. `cache` is a folder for patches of stores that are not local."""
    found, other = _Differences(), set[Hashable]()
    draws, second_draws = _rows(undisturbed, "draws"), _rows(disturbed, "draws")
    found.repeated += [f"draw {_spell(key)}: {n} times" for key, n in _count(second_draws, DRAW).items() if n > 1]
    for key, first, second in found.pairs("draw", _by_key(draws, DRAW), _by_key(second_draws, DRAW)):
        columns = [c for c in first if c not in BY_WHOM and first[c] != second[c]]
        if columns and set(columns) <= set(SAMPLED):
            found.resampled.append(f"draw {_spell(key)}")
            other.add(_draw_of(first))
        elif columns:
            found.changed.append(f"draw {_spell(key)}: {', '.join(columns)}")
    grades, all_second = _conclusive(_rows(undisturbed, "grades")), _rows(disturbed, "grades")
    second_grades = _conclusive(all_second)
    found.repeated += [f"grade {_spell(key)}: {n} times" for key, n in _count(second_grades, GRADE).items() if n > 1]
    # Draws with other tokens may be graded differently, but graded they must be.
    same_draws = [[row for row in rows if _draw_of(row) not in other] for rows in (grades, second_grades)]
    for key, first, second in found.pairs("grade", *(_by_key(rows, GRADE) for rows in same_draws)):
        if first != second:
            found.changed.append(f"grade {_spell(key)}")
    ungraded = {_draw_of(row) for row in grades} & other - {_draw_of(row) for row in second_grades}
    found.missing += [f"every grade of draw {_spell(name)}" for name in ungraded]
    patches, second_patches = _patches(undisturbed, cache / "undisturbed"), _patches(disturbed, cache / "disturbed")
    for name, made, made_again in found.pairs("patch", patches, second_patches):
        if made != made_again:
            found.changed.append(f"patch {name}: other bytes")
    return StoreComparison(
        len(draws),
        len(grades),
        len(patches),
        missing=tuple(sorted(found.missing)),
        surplus=tuple(sorted(found.surplus)),
        repeated=tuple(sorted(found.repeated)),
        failures=tuple(f"{r['kind']}: {r['cause']} ({r['problem_id']})" for r in _rows(disturbed, "failures")),
        changed=tuple(sorted(found.changed)),
        resampled=tuple(sorted(found.resampled)),
        grader_retries=len(all_second) - len(second_grades),
    )


@dataclass
class _Differences:
    """The lines of a comparison in the making; see `StoreComparison`."""

    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)

    def pairs(self, what: str, first: Mapping[Any, T], second: Mapping[Any, T]) -> Iterator[tuple[Any, T, T]]:
        """(key, value, value) of every key that both have; the others are noted as missing or surplus."""
        self.missing += [f"{what} {_spell(key)}" for key in first.keys() - second.keys()]
        self.surplus += [f"{what} {_spell(key)}" for key in second.keys() - first.keys()]
        for key in first.keys() & second.keys():
            yield key, first[key], second[key]


def _rows(store: Store, table: str) -> list[Row]:
    return [row for context in sorted(store.contexts(table)) for row in store.read(table, context).to_pylist()]


def _conclusive(grades: Iterable[Row]) -> list[Row]:
    return [row for row in grades if not Grade(row["verdict"], None, row["cause"] or None).grader_failed]


def _key(row: Row, columns: tuple[str, ...]) -> tuple[Hashable, ...]:
    return tuple(row[column] for column in columns)


def _draw_of(row: Row) -> Hashable:
    return (row["context_id"], row["prompt_id"], row["seed"])


def _by_key(rows: Iterable[Row], columns: tuple[str, ...]) -> dict[tuple[Hashable, ...], Row]:
    return {_key(row, columns): row for row in rows}


def _count(rows: Iterable[Row], columns: tuple[str, ...]) -> Counter[tuple[Hashable, ...]]:
    return Counter(_key(row, columns) for row in rows)


def _patches(store: Store, cache: Path) -> dict[str, object]:
    """Patch id -> digests of its files and of the resulting weights."""
    manifests = {name: read_manifest(store.fetch_patch(name, cache)) for name in store.patch_ids()}
    return {name: (made.weights_digest, dict(made.files)) for name, made in manifests.items()}


def _spell(key: object) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
