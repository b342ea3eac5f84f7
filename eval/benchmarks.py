"""Benchmarks: pinned data sets, and files of the user's own, whole or in part, become problems with stable ids.

The built-in benchmarks are the table of `eval/built_in.py`; a file of the user's own has `id`, `problem`, `answer` and
optionally `choices`. Errors name the row, the rule and the remedy.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from eval.benchmark_files import FILE_FORMATS, Row, read_rows
from eval.built_in import BUILT_IN, USUAL_TOKENS, built_in_name, read_hub
from eval.problems import Problem, RowError, built_in_problem, file_problem
from eval.spec import BenchmarkSpec, check_benchmark, nearest


@dataclass(frozen=True)
class Benchmark:
    """A loaded benchmark: a built-in one, or a file named by its stem; a part has a name that says which."""

    name: str
    problems: tuple[Problem, ...]
    typical_tokens: int = USUAL_TOKENS
    """Thinking tokens that one draw roughly takes, for the order of work and for estimates before any draw is in."""


def load_benchmark(wanted: BenchmarkSpec | str, *, shuffle_seed: int = 0) -> Benchmark:
    """Load a built-in (`MATH-500`), a file (`./mine.jsonl`), or a built-in from a local copy (`AIME24=./aime.parquet`).

    A text is a spec of that name. A local copy has the built-in's own columns. `shuffle_seed` decides the order of
    GPQA-Diamond's choices, question by question; sampling seeds do not. Raises `ValueError` naming benchmark, row and
    remedy.
    """
    spec = BenchmarkSpec(wanted) if isinstance(wanted, str) else wanted
    check_benchmark(spec)
    named, _, local = spec.name.partition("=")
    built_in = built_in_name(named)
    if built_in is not None:
        return _built_in(built_in, Path(local) if local else None, spec, shuffle_seed)
    path = Path(spec.name)
    if not path.exists() and (path.suffix not in FILE_FORMATS or local):
        raise ValueError(
            f"benchmark {spec.name!r} is neither a built-in ({', '.join(BUILT_IN)}) nor a file "
            f"({', '.join('*' + suffix for suffix in FILE_FORMATS)}).{nearest(named, BUILT_IN)}"
        )
    if spec.rows is not None:
        raise ValueError(f"rows is {spec.rows!r}, but {path} is no copy of a built-in, and may have any. Drop rows.")
    columns = dict(spec.columns)
    problems = _parse(read_rows(path), str(path), lambda row, _: file_problem(row, columns))
    return _part(Benchmark(path.stem, problems), spec, "")


def sample_of(ids: Iterable[str], count: int, seed: int) -> frozenset[str]:
    """`count` of `ids`, the same in whatever order they come: those whose hash with `seed` is smallest.

    So a smaller sample of the same seed is a part of a larger one, and data that only one version has replaces at most
    as many problems as it has rows.
    """

    def rank(question_id: str) -> str:
        return hashlib.sha256(f"sample/{seed}/{question_id}".encode()).hexdigest()

    return frozenset(sorted(ids, key=rank)[:count])


def _built_in(name: str, local: Path | None, spec: BenchmarkSpec, shuffle_seed: int) -> Benchmark:
    dataset = BUILT_IN[name]
    if spec.columns:
        raise ValueError(
            f"columns are for files of your own, and {name} has columns that are known. Drop columns, or give the file "
            "without the name."
        )
    rows, origin = (
        (read_rows(local), str(local))
        if local is not None
        else (read_hub(name, dataset), f"{dataset.hub_id}@{dataset.revision[:8]}")
    )
    problems = _parse(rows, origin, lambda row, index: built_in_problem(dataset, row, index, shuffle_seed))
    whole, found = Benchmark(name, problems, dataset.typical_tokens), len(problems)
    if found == dataset.count:
        return _part(whole, spec, "")
    if local is None:
        raise ValueError(
            f"{name}: {origin} has {found} rows, but the pinned revision has {dataset.count}. "
            "Delete the cached copy and load it again."
        )
    if spec.rows != "any" and found not in (spec.first, spec.sample):
        raise ValueError(_refusal(name, local, found, dataset.count, spec))
    # A copy of exactly the part that is asked for is that part, saved.
    return _part(whole, spec, "" if found in (spec.first, spec.sample) else f" of {found} row{'s' * (found != 1)}")


def _refusal(name: str, local: Path, found: int, count: int, spec: BenchmarkSpec) -> str:
    part = f", {spec.part.replace(' ', ': ', 1).replace(' seed ', ', seed: ')}" if spec.part else ""
    a_part = f"; say which part the copy is: {{name: {name}={local}, first: {found}}}" if found < count else ""
    return (
        f"{name}: {local} has {found} rows, but {name} has {count}, so its results would not be those of {name}. "
        f"Give the whole{a_part}; or accept the copy, to be shown with its number of rows: "
        f"{{name: {name}={local}{part}, rows: any}}."
    )


def _part(whole: Benchmark, spec: BenchmarkSpec, of_rows: str) -> Benchmark:
    """The part of `whole` that `spec` asks for, in the order of the rows, under a name that says so."""
    found, count = len(whole.problems), spec.sample if spec.first is None else spec.first
    if count is not None and count > found:
        setting = "sample" if spec.first is None else "first"
        raise ValueError(
            f"{setting} is {count}, but {whole.name} has {found} problems. Use at most {found}, or drop {setting}."
        )
    problems = whole.problems[: spec.first]
    if spec.sample is not None:
        chosen = sample_of((problem.id for problem in problems), spec.sample, spec.seed or 0)
        problems = tuple(problem for problem in problems if problem.id in chosen)
    # Plain words: a name is a metric's in MLflow, a file's in a drill and an argument of `explain`.
    return replace(whole, name=f"{whole.name} {spec.part}".rstrip() + of_rows, problems=problems)


def _parse(rows: Iterable[Row], origin: str, read: Callable[[Row, int], Problem]) -> tuple[Problem, ...]:
    problems: list[Problem] = []
    row_of_id: dict[str, int] = {}
    for index, row in enumerate(rows):
        try:
            problem = read(row, index)
        except RowError as refusal:
            raise ValueError(f"{origin}, row {index + 1}: {refusal}") from None
        if problem.id in row_of_id:
            raise ValueError(
                f"{origin}, row {index + 1}: id {problem.id!r} is already used in row {row_of_id[problem.id]}. "
                "Questions are told apart by their ids: rename one."
            )
        row_of_id[problem.id] = index + 1
        problems.append(problem)
    if not problems:
        raise ValueError(f"{origin} holds no problems. Give at least one row.")
    return tuple(problems)
