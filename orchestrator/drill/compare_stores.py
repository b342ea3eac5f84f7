"""Whether two stores hold the same results: every row of one against the row of the same name in the other. Pure reads.

Who made a row, and when, is not part of a result. A verdict that a grader could not come to is none: only standing
verdicts are compared.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.grading import Grade
from orchestrator.store.store import Store
from pruning.patch.manifest import read_manifest

DRAW = ("context_id", "answer_context_id", "prompt_id", "seed", "start")
GRADE = ("context_id", "answer_context_id", "prompt_id", "seed", "cut", "gold_id", "grader")
BY_WHOM = ("worker", "created_at")
SAMPLED = ("trace_ids", "trace_text", "ended", "answers")
"""What an engine that is not bit-identical may write otherwise the second time."""
NAMED = 5

Row = Mapping[str, Any]


@dataclass(frozen=True)
class StoreComparison:
    """What a comparison found; each difference is a line that names its row."""

    draws: int
    grades: int
    patches: int
    """Rows of the first store that were compared."""
    missing: tuple[str, ...]
    """In the first store and not in the second."""
    surplus: tuple[str, ...]
    """In the second and not in the first."""
    repeated: tuple[str, ...]
    """Committed more than once in the second."""
    failures: tuple[str, ...]
    """Recorded as given up in the second."""
    changed: tuple[str, ...]
    """Of one name and not alike, beyond what an engine samples."""
    resampled: tuple[str, ...]
    """Draws whose tokens differ and nothing else: an engine that is not bit-identical."""
    grader_retries: int
    """Verdicts of the second store that a grader could not come to and came to later."""

    @property
    def identical(self) -> bool:
        """Nothing is lost, repeated, given up or changed. `resampled` must be looked at beside this."""
        return not (self.missing or self.surplus or self.repeated or self.failures or self.changed)

    def lines(self) -> list[str]:
        """For a person: what was compared and what differs, the first few by name."""
        told = [f"compared {self.draws} draws, {self.grades} grades and {self.patches} patches, row by row"]
        for found, about in (
            (self.missing, "missing after the disturbed run"),
            (self.surplus, "only in the disturbed run"),
            (self.repeated, "committed more than once"),
            (self.failures, "given up"),
            (self.changed, "different"),
        ):
            told += [f"{len(found)} {about}:", *(f"  {line}" for line in found[:NAMED])] if found else []
        if self.resampled:
            told.append(
                f"{len(self.resampled)} of {self.draws} draws have other tokens, at temperature 0: this engine is not "
                "bit-identical from run to run. For them and their grades, only presence, uniqueness and weights "
                "were compared. The first: " + self.resampled[0]
            )
        if self.grader_retries:
            told.append(f"{self.grader_retries} gradings failed and were done again")
        return told


def compare_stores(undisturbed: Store, disturbed: Store, cache: Path) -> StoreComparison:
    """Compare what two runs of one grid committed. `cache` is a folder for patches of stores that are not local."""
    missing: list[str] = []
    surplus: list[str] = []
    changed: list[str] = []
    resampled: list[str] = []
    draws, again = _rows(undisturbed, "draws"), _rows(disturbed, "draws")
    repeated = [f"draw {_spell(name)}: {n} times" for name, n in _count(again, DRAW).items() if n > 1]
    left, right = _by_name(draws, DRAW), _by_name(again, DRAW)
    _presence("draw", left, right, missing, surplus)
    unlike: set[Hashable] = set()
    for name in left.keys() & right.keys():
        columns = [c for c in left[name] if c not in BY_WHOM and left[name][c] != right[name][c]]
        if columns and set(columns) <= set(SAMPLED):
            resampled.append(f"draw {_spell(name)}")
            unlike.add(_draw_of(left[name]))
        elif columns:
            changed.append(f"draw {_spell(name)}: {', '.join(columns)}")
    grades, judged = _standing(_rows(undisturbed, "grades")), _rows(disturbed, "grades")
    standing = _standing(judged)
    failed = len(judged) - len(standing)
    repeated += [f"grade {_spell(name)}: {n} times" for name, n in _count(standing, GRADE).items() if n > 1]
    left, right = (_by_name((row for row in rows if _draw_of(row) not in unlike), GRADE) for rows in (grades, standing))
    _presence("grade", left, right, missing, surplus)
    changed += [f"grade {_spell(name)}" for name in left.keys() & right.keys() if left[name] != right[name]]
    ungraded = {_draw_of(row) for row in grades} & unlike - {_draw_of(row) for row in standing}
    missing += [f"every grade of draw {_spell(name)}" for name in ungraded]
    failures = [f"{row['kind']}: {row['cause']} ({row['problem_id']})" for row in _rows(disturbed, "failures")]
    weights, theirs = _patches(undisturbed, cache / "calm"), _patches(disturbed, cache / "disturbed")
    _presence("patch", weights, theirs, missing, surplus)
    changed += [
        f"patch {name}: other bytes" for name in weights.keys() & theirs.keys() if weights[name] != theirs[name]
    ]
    return StoreComparison(
        len(draws),
        len(grades),
        len(weights),
        tuple(sorted(missing)),
        tuple(sorted(surplus)),
        tuple(sorted(repeated)),
        tuple(failures),
        tuple(sorted(changed)),
        tuple(sorted(resampled)),
        failed,
    )


def _rows(store: Store, table: str) -> list[Row]:
    return [row for context in sorted(store.contexts(table)) for row in store.read(table, context).to_pylist()]


def _standing(grades: Iterable[Row]) -> list[Row]:
    return [row for row in grades if not Grade(row["verdict"], None, row["cause"] or None).grader_failed]


def _name(row: Row, columns: tuple[str, ...]) -> tuple[Hashable, ...]:
    return tuple(row[column] for column in columns)


def _draw_of(row: Row) -> Hashable:
    return (row["context_id"], row["prompt_id"], row["seed"])


def _by_name(rows: Iterable[Row], columns: tuple[str, ...]) -> dict[tuple[Hashable, ...], Row]:
    return {_name(row, columns): row for row in rows}


def _count(rows: Iterable[Row], columns: tuple[str, ...]) -> Counter[tuple[Hashable, ...]]:
    return Counter(_name(row, columns) for row in rows)


def _presence(
    what: str, left: Mapping[Any, object], right: Mapping[Any, object], missing: list[str], surplus: list[str]
) -> None:
    missing += [f"{what} {_spell(name)}" for name in left.keys() - right.keys()]
    surplus += [f"{what} {_spell(name)}" for name in right.keys() - left.keys()]


def _patches(store: Store, cache: Path) -> dict[str, object]:
    """Patch id -> digests of everything that it is, files and resulting tensors."""
    manifests = {name: read_manifest(store.fetch_patch(name, cache)) for name in store.patch_ids()}
    return {name: (made.weights_digest, dict(made.files)) for name, made in manifests.items()}


def _spell(name: object) -> str:
    return "/".join(map(str, name)) if isinstance(name, tuple) else str(name)
