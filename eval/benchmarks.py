"""Pinned data becomes problems with stable ids, and a content digest that goes into every draw's identity.

The built-in benchmarks are rows of one table: hub id, revision, split and columns. A file of the user's own
has ``id``, ``problem``, ``answer`` and optionally ``choices``. Errors name the row, the rule and the
remedy.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.answers import as_integer, choice_letter
from eval.spec import nearest

Kind = Literal["math", "integer", "choice"]
Row = Mapping[str, Any]
FILE_FORMATS = (".jsonl", ".parquet", ".csv")
MAX_CHOICES = 26


@dataclass(frozen=True)
class Problem:
    """One question. ``answer`` is the gold: LaTeX or plain text, an integer's decimal digits, or a choice's
    letter.

    ``choices`` stand in the order shown to the model; ``permutation[i]`` is the place that shown choice i
    has in the source (0 is the correct one in GPQA), None where the source's own order is shown.
    """

    id: str
    text: str
    answer: str
    choices: tuple[str, ...] | None = None
    permutation: tuple[int, ...] | None = None
    kind: Kind = "math"


@dataclass(frozen=True)
class Benchmark:
    """``digest`` is the SHA-256 (hex) of the problems' content in order, and of nothing else: not of name
    or path.
    """

    name: str
    problems: tuple[Problem, ...]
    digest: str


@dataclass(frozen=True)
class Source:
    """Where a built-in benchmark lives and how its columns are called.

    ``id`` None numbers the rows. ``incorrect`` names the columns of wrong choices. ``count`` is the number
    of rows that the pinned revision has; another number means another data set.
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


# Revisions are full commit ids. Each was cross-checked against at least two public projects that pin the
# same data.
BUILT_IN: dict[str, Source] = {
    "MATH-500": Source(
        hub_id="HuggingFaceH4/MATH-500", revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", split="test",
        count=500, kind="math", problem="problem", answer="answer", id="unique_id",
    ),
    "AIME24": Source(
        hub_id="HuggingFaceH4/aime_2024", revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a", split="train",
        count=30, kind="integer", problem="problem", answer="answer", id="id",
    ),
    "AIME25": Source(
        hub_id="math-ai/aime25", revision="563bb8404243c5f09de6ec262f2db674fe5bce9b", split="test",
        count=30, kind="integer", problem="problem", answer="answer", id="id",
    ),
    "AMC23": Source(
        hub_id="math-ai/amc23", revision="80815d37005feb82cd7f8fbc6901d5d3eff43057", split="test",
        count=40, kind="integer", problem="question", answer="answer", id="id",
    ),
    "GPQA-Diamond": Source(
        hub_id="Idavidrein/gpqa", revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd", split="train",
        config="gpqa_diamond", count=198, kind="choice", problem="Question", answer="Correct Answer",
        incorrect=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        id="Record ID", gated=True,
    ),
}  # fmt: skip


class _RowError(Exception):
    """A rule that one row breaks; the loader puts the row's place in front."""


def load_benchmark(name_or_path: str, *, shuffle_seed: int = 0) -> Benchmark:
    """Load a built-in (``MATH-500``), a file (``./mine.jsonl``), or a built-in from a local copy
    (``AIME24=./aime.parquet``).

    A local copy has the built-in's own columns. ``shuffle_seed`` orders the choices of GPQA-Diamond, per
    question, and is independent of sampling seeds. Raises ``ValueError`` naming benchmark, row and remedy.
    """
    built_in, _, local = name_or_path.partition("=")
    if built_in in BUILT_IN:
        source = BUILT_IN[built_in]
        rows = _read_rows(Path(local)) if local else _read_hub(built_in, source)
        place = local or f"{source.hub_id}@{source.revision[:8]}"
        problems = _parse(rows, place, lambda row, index: _built_in_problem(source, row, index, shuffle_seed))
        if not local and len(problems) != source.count:
            raise ValueError(
                f"{built_in}: {place} has {len(problems)} rows, but the pinned revision has {source.count}. "
                "Delete the cached copy and load it again."
            )
        return _benchmark(built_in, problems)
    path = Path(name_or_path)
    if path.suffix not in FILE_FORMATS and not path.exists():
        raise ValueError(
            f"benchmark {name_or_path!r} is neither a built-in ({', '.join(BUILT_IN)}) nor a file "
            f"({', '.join('*' + suffix for suffix in FILE_FORMATS)}).{nearest(built_in, BUILT_IN)}"
        )
    return _benchmark(path.stem, _parse(_read_rows(path), str(path), _file_problem))


def content_digest(problems: Iterable[Problem]) -> str:
    """SHA-256 (hex) over the problems' fields in order: the identity of a benchmark's content."""
    digest = hashlib.sha256()
    for problem in problems:
        fields = [
            problem.id,
            problem.text,
            problem.answer,
            problem.choices,
            problem.permutation,
            problem.kind,
        ]
        digest.update(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def permutation_of(question_id: str, count: int, shuffle_seed: int) -> tuple[int, ...]:
    """A uniform order of ``count`` choices, decided by the question's id and the seed alone.

    Not by call order, caches or how many questions there are: the faults behind inspect_evals#2391 and
    evalscope#1602.
    """

    def rank(index: int) -> str:
        return hashlib.sha256(f"{shuffle_seed}/{question_id}/{index}".encode()).hexdigest()

    return tuple(sorted(range(count), key=rank))


def _benchmark(name: str, problems: tuple[Problem, ...]) -> Benchmark:
    return Benchmark(name, problems, content_digest(problems))


def _parse(rows: Iterable[Row], place: str, read: Callable[[Row, int], Problem]) -> tuple[Problem, ...]:
    problems: list[Problem] = []
    row_of_id: dict[str, int] = {}
    for index, row in enumerate(rows):
        try:
            problem = read(row, index)
        except _RowError as refusal:
            raise ValueError(f"{place}, row {index + 1}: {refusal}") from None
        if problem.id in row_of_id:
            raise ValueError(
                f"{place}, row {index + 1}: id {problem.id!r} already stands in row {row_of_id[problem.id]}. "
                "Ids name draws in the store, so each must be unique: rename one."
            )
        row_of_id[problem.id] = index + 1
        problems.append(problem)
    if not problems:
        raise ValueError(f"{place} holds no problems. Give at least one row.")
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


def _built_in_problem(source: Source, row: Row, index: int, shuffle_seed: int) -> Problem:
    for column in (source.problem, source.answer, *source.incorrect):
        if column not in row:
            raise _RowError(
                f"column {column!r} is missing (found {', '.join(row)}). Use a copy of {source.hub_id} as published."
            )
    number = index if source.id is None or source.id not in row else row[source.id]
    text, answer = _text(row, source.problem), _answer(row, source.answer)
    if source.kind == "integer":
        return Problem(str(number), text, _integer(answer), kind="integer")
    if source.kind == "math":
        return Problem(str(number), text, answer)
    options = tuple(_text(row, column).strip() for column in (source.answer, *source.incorrect))
    order = permutation_of(str(number), len(options), shuffle_seed)
    letter = choice_letter(order.index(0))
    return Problem(str(number), text, letter, tuple(options[i] for i in order), order, "choice")


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise _RowError(f"{column} is {value!r} ({type(value).__name__}), but it must be text. Put it in quotes.")
    if not value.strip():
        raise _RowError(f"{column} is empty. Write the text, or drop the row.")
    return value


def _answer(row: Row, column: str) -> str:
    """Answers come as text, whole numbers, or floats where a mirror stored 27 as 27.0."""
    value = row[column]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise _RowError(f"{column} is {value!r}, so nothing could be graded. Write the right answer, or drop the row.")


def _integer(answer: str) -> str:
    number = as_integer(answer)
    if number is None:
        raise _RowError(
            f"answer {answer!r} is not a whole number, which every answer of this benchmark is. Correct the copy."
        )
    return str(number)


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
        raise _RowError(
            f"choices is {value!r}: one text stands there twice, so two letters would be right. Correct it."
        )
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
    # pyarrow costs a moment to import, and JSONL files, the common case, do without it.
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(path).to_pylist())
    if path.suffix == ".csv":
        from pyarrow import csv

        options = csv.ParseOptions(newlines_in_values=True)
        return list(csv.read_csv(path, parse_options=options).to_pylist())
    raise ValueError(f"benchmark file {path} is not one of {', '.join(FILE_FORMATS)}. Convert it.")


def _read_jsonl(path: Path) -> Iterable[Row]:
    # Split on newlines only: str.splitlines would also break at U+2028, which JSON strings may hold.
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


def _read_hub(name: str, source: Source) -> Iterable[Row]:
    from datasets import DownloadConfig, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        data = load_dataset(
            source.hub_id, source.config, split=source.split, revision=source.revision,
            download_config=DownloadConfig(max_retries=2),
        )  # fmt: skip
    except (OSError, DatasetNotFoundError, ValueError) as error:  # no network, no access, no such cached copy
        access = (
            f" {source.hub_id} is gated: accept its terms on its page while logged in, and set HF_TOKEN."
            if source.gated
            else ""
        )
        raise ValueError(
            f"benchmark {name}: {source.hub_id} (revision {source.revision[:8]}, split {source.split}) "
            f"could not be loaded: {str(error).splitlines()[0]}.{access} Without the hub, write "
            f"{name}=PATH with a local copy ({', '.join(FILE_FORMATS)}) that has its columns: "
            f"{', '.join(filter(None, (source.id, source.problem, source.answer, *source.incorrect)))}."
        ) from error
    return list(data)
