"""Benchmarks: pinned data sets, and files of the user's own, become problems with stable ids.

The built-in benchmarks are rows of one table: hub id, revision, split and columns. A file of the user's own has `id`,
`problem`, `answer` and optionally `choices`. Errors name the row, the rule and the remedy.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.extraction.choices import choice_letter
from eval.hub import cached_only, unreachable
from eval.kinds import KINDS, Kind
from eval.spec import nearest

Row = Mapping[str, Any]
FILE_FORMATS = (".jsonl", ".parquet", ".csv")
MAX_CHOICES = 26
USUAL_TOKENS = 4_000
"""Typical thinking tokens of a benchmark of which nothing is known."""


@dataclass(frozen=True)
class Problem:
    """One question.

    `answer` is the gold: LaTeX or plain text, an integer's decimal digits, or a choice's letter. `choices` are in the
    order shown to the model. `permutation[i]` is the index of shown choice i in the data set, where 0 is the correct
    one; it is None where the data set's own order is shown.
    """

    id: str
    text: str
    answer: str
    choices: tuple[str, ...] | None = None
    permutation: tuple[int, ...] | None = None
    kind: Kind = "math"


@dataclass(frozen=True)
class Benchmark:
    """A loaded benchmark: a built-in one, or a file named by its stem."""

    name: str
    problems: tuple[Problem, ...]
    typical_tokens: int = USUAL_TOKENS
    """Thinking tokens that one draw roughly takes, for the order of work and for estimates before any draw is in."""


@dataclass(frozen=True)
class HubDataset:
    """Where a built-in benchmark is on the hub, and what its columns are called.

    `count` is the number of rows of the pinned revision; another number means other data. `id` None numbers the rows.
    `incorrect` names the columns of wrong choices. `typical_tokens` are the thinking tokens of 7–8 B reasoning models,
    roughly: only their order is relied on.
    """

    hub_id: str
    revision: str
    split: str
    count: int
    kind: Kind
    problem: str
    answer: str
    id: str | None
    config: str | None = None
    incorrect: tuple[str, ...] = ()
    gated: bool = False
    typical_tokens: int = USUAL_TOKENS


# Revisions are full commit ids, each cross-checked against at least two public projects that pin the same data.
BUILT_IN: dict[str, HubDataset] = {
    "MATH-500": HubDataset(
        hub_id="HuggingFaceH4/MATH-500", revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", split="test",
        count=500, kind="math", problem="problem", answer="answer", id="unique_id",
        typical_tokens=3_500,
    ),
    "AIME24": HubDataset(
        hub_id="HuggingFaceH4/aime_2024", revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a", split="train",
        count=30, kind="integer", problem="problem", answer="answer", id="id", typical_tokens=10_000,
    ),
    "AIME25": HubDataset(
        hub_id="math-ai/aime25", revision="563bb8404243c5f09de6ec262f2db674fe5bce9b", split="test",
        count=30, kind="integer", problem="problem", answer="answer", id="id", typical_tokens=10_000,
    ),
    "AMC23": HubDataset(
        hub_id="math-ai/amc23", revision="80815d37005feb82cd7f8fbc6901d5d3eff43057", split="test",
        count=40, kind="integer", problem="question", answer="answer", id="id", typical_tokens=6_000,
    ),
    "GPQA-Diamond": HubDataset(
        hub_id="Idavidrein/gpqa", revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd", split="train",
        config="gpqa_diamond", count=198, kind="choice", problem="Question", answer="Correct Answer",
        incorrect=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        id="Record ID", gated=True, typical_tokens=6_000,
    ),
}  # fmt: skip


class _RowError(Exception):
    """One row breaks a rule; the loader adds which row."""


def load_benchmark(name_or_path: str, *, shuffle_seed: int = 0) -> Benchmark:
    """Load a built-in (`MATH-500`), a file (`./mine.jsonl`), or a built-in from a local copy (`AIME24=./aime.parquet`).

    A local copy has the built-in's own columns. `shuffle_seed` decides the order of GPQA-Diamond's choices, question by
    question; sampling seeds do not. Raises `ValueError` naming benchmark, row and remedy.
    """
    built_in, _, local = name_or_path.partition("=")
    if built_in in BUILT_IN:
        dataset = BUILT_IN[built_in]
        rows = _read_rows(Path(local)) if local else _read_hub(built_in, dataset)
        origin = local or f"{dataset.hub_id}@{dataset.revision[:8]}"
        problems = _parse(rows, origin, lambda row, index: _built_in_problem(dataset, row, index, shuffle_seed))
        if not local and len(problems) != dataset.count:
            raise ValueError(
                f"{built_in}: {origin} has {len(problems)} rows, but the pinned revision has {dataset.count}. "
                "Delete the cached copy and load it again."
            )
        return Benchmark(built_in, problems, dataset.typical_tokens)
    path = Path(name_or_path)
    if path.suffix not in FILE_FORMATS and not path.exists():
        raise ValueError(
            f"benchmark {name_or_path!r} is neither a built-in ({', '.join(BUILT_IN)}) nor a file "
            f"({', '.join('*' + suffix for suffix in FILE_FORMATS)}).{nearest(built_in, BUILT_IN)}"
        )
    return Benchmark(path.stem, _parse(_read_rows(path), str(path), _file_problem))


def permutation_of(question_id: str, count: int, shuffle_seed: int) -> tuple[int, ...]:
    """A uniform order of `count` choices, a function of the question's id and the seed alone.

    Orders that depend on call order, caches or the number of questions are the faults behind inspect_evals#2391 and
    evalscope#1602.
    """

    def rank(index: int) -> str:
        return hashlib.sha256(f"{shuffle_seed}/{question_id}/{index}".encode()).hexdigest()

    return tuple(sorted(range(count), key=rank))


def _parse(rows: Iterable[Row], origin: str, read: Callable[[Row, int], Problem]) -> tuple[Problem, ...]:
    problems: list[Problem] = []
    row_of_id: dict[str, int] = {}
    for index, row in enumerate(rows):
        try:
            problem = read(row, index)
        except _RowError as refusal:
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


def _file_problem(row: Row, index: int) -> Problem:
    missing = [column for column in ("id", "problem", "answer") if column not in row]
    if missing:
        spare = [column for column in row if column not in ("id", "problem", "answer", "choices")]
        hint = nearest(missing[0], spare).replace("Did you mean", "Rename")
        raise _RowError(
            f"column {missing[0]!r} is missing; a row has id, problem, answer and optionally choices.{hint}"
        )
    if row["id"] is None or str(row["id"]).strip() == "":
        raise _RowError("id is empty. Give every problem a name of its own.")
    text = _text(row, "problem")
    if row.get("choices") is None:
        return Problem(str(row["id"]), text, _answer(row, "answer"))
    choices = _choices(row["choices"])
    return Problem(str(row["id"]), text, _letter_among(choices, _answer(row, "answer")), choices, kind="choice")


def _built_in_problem(dataset: HubDataset, row: Row, index: int, shuffle_seed: int) -> Problem:
    for column in (dataset.problem, dataset.answer, *dataset.incorrect):
        if column not in row:
            raise _RowError(
                f"column {column!r} is missing (found {', '.join(row)}). Use a copy of {dataset.hub_id} as published."
            )
    number = index if dataset.id is None or dataset.id not in row else row[dataset.id]
    text, answer = _text(row, dataset.problem), _answer(row, dataset.answer)
    if not dataset.incorrect:
        try:
            return Problem(str(number), text, KINDS[dataset.kind].normalize_gold(answer), kind=dataset.kind)
        except ValueError as error:
            raise _RowError(str(error)) from None
    options = tuple(_text(row, column).strip() for column in (dataset.answer, *dataset.incorrect))
    order = permutation_of(str(number), len(options), shuffle_seed)
    letter = choice_letter(order.index(0))
    return Problem(str(number), text, letter, tuple(options[i] for i in order), order, dataset.kind)


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise _RowError(f"{column} is {value!r} ({type(value).__name__}), but it must be text. Put it in quotes.")
    if not value.strip():
        raise _RowError(f"{column} is empty. Write the text, or drop the row.")
    return value


def _answer(row: Row, column: str) -> str:
    """The answer as text. It is stored as text, as a whole number, or as a float where a mirror wrote 27 as 27.0."""
    value = row[column]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise _RowError(f"{column} is {value!r}, so nothing could be graded. Write the right answer, or drop the row.")


def _choices(value: Any) -> tuple[str, ...]:
    listed = list(value) if isinstance(value, list | tuple) else None
    if (
        listed is None
        or not 2 <= len(listed) <= MAX_CHOICES
        or not all(isinstance(c, str) and c.strip() for c in listed)
    ):
        raise _RowError(
            f"choices is {value!r}, but it must be a list of 2 to {MAX_CHOICES} texts. Drop it for open questions."
        )
    if len(set(listed)) < len(listed):
        raise _RowError(f"choices is {value!r}: one text is listed twice, so two letters would be right. Correct it.")
    return tuple(listed)


def _letter_among(choices: tuple[str, ...], answer: str) -> str:
    letters = [choice_letter(index) for index in range(len(choices))]
    if answer in choices:
        return letters[choices.index(answer)]
    if answer.upper() in letters:
        return answer.upper()
    raise _RowError(
        f"answer {answer!r} is neither one of the letters {letters[0]} to {letters[-1]} nor one of the choices."
    )


def _read_rows(path: Path) -> Iterable[Row]:
    if not path.is_file():
        raise ValueError(f"benchmark file {path} does not exist (looked from {Path.cwd()}). Correct the path.")
    if path.suffix == ".jsonl":
        return _read_jsonl(path)
    # Imported here because it is slow, and JSONL files, the common case, do not need it.
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(path).to_pylist())
    if path.suffix == ".csv":
        from pyarrow import csv

        options = csv.ParseOptions(newlines_in_values=True)
        return list(csv.read_csv(path, parse_options=options).to_pylist())
    raise ValueError(f"benchmark file {path} is not one of {', '.join(FILE_FORMATS)}. Convert it.")


def _read_jsonl(path: Path) -> Iterable[Row]:
    # Split on newlines only: str.splitlines would also split at U+2028, which JSON strings may contain.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}). One object per line is expected.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a {type(row).__name__} where one object per line is expected.")
        yield row


def _read_hub(name: str, dataset: HubDataset) -> Iterable[Row]:
    from datasets import DownloadConfig, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    offline = unreachable()
    try:
        with cached_only() if offline else nullcontext():
            data = load_dataset(
                dataset.hub_id, dataset.config, split=dataset.split, revision=dataset.revision,
                download_config=DownloadConfig(max_retries=2),
            )  # fmt: skip
    except (OSError, DatasetNotFoundError, ValueError) as error:  # no network, no access, no such cached copy
        cause = f"it is not in the local Hugging Face cache, and {offline}" if offline else str(error).splitlines()[0]
        access = (
            f" {dataset.hub_id} is gated: accept its terms on its page while logged in, and set HF_TOKEN."
            if dataset.gated
            else ""
        )
        raise ValueError(
            f"benchmark {name}: {dataset.hub_id} (revision {dataset.revision[:8]}, split {dataset.split}) "
            f"could not be loaded: {cause}.{access} Without the hub, write "
            f"{name}=PATH with a local copy ({', '.join(FILE_FORMATS)}) that has its columns: "
            f"{', '.join(filter(None, (dataset.id, dataset.problem, dataset.answer, *dataset.incorrect)))}."
        ) from error
    return list(data)
