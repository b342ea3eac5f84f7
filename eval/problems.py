"""One row of a benchmark becomes a problem with a stable id, or is refused by the rule that it breaks."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.benchmark_files import Row
from eval.built_in import HubDataset
from eval.extraction.choices import choice_letter
from eval.kinds import KINDS, Kind
from eval.spec import nearest

FILE_COLUMNS = ("id", "problem", "answer", "choices")
"""The columns of a file of the user's own; only the last may be absent."""
MAX_CHOICES = 26


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


class RowError(Exception):
    """One row breaks a rule; the loader adds which row."""


def permutation_of(question_id: str, count: int, shuffle_seed: int) -> tuple[int, ...]:
    """A uniform order of `count` choices, a function of the question's id and the seed alone.

    Orders that depend on call order, caches or the number of questions are the faults behind inspect_evals#2391 and
    evalscope#1602.
    """

    def rank(index: int) -> str:
        return hashlib.sha256(f"{shuffle_seed}/{question_id}/{index}".encode()).hexdigest()

    return tuple(sorted(range(count), key=rank))


def file_problem(row: Row, columns: Mapping[str, str]) -> Problem:
    """The problem of a row of a file of the user's own. `columns`: what the file calls `id`, `problem`, `answer` and
    `choices`, where it is not that. Raises RowError."""
    names = {column: columns.get(column, column) for column in FILE_COLUMNS}
    needed = [column for column in FILE_COLUMNS if column != "choices" or column in columns]
    missing = next((column for column in needed if names[column] not in row), None)
    if missing is not None and missing in columns:
        spare = nearest(names[missing], row)
        raise RowError(f"column {names[missing]!r}, which columns gives as the {missing}, is missing.{spare}")
    if missing is not None:
        spare = nearest(missing, [column for column in row if column not in names.values()])
        rename = spare.replace("Did you mean", "Rename")
        raise RowError(
            f"column {missing!r} is missing; a row has id, problem, answer and optionally choices.{rename} "
            f"Or say what it is called: columns: {{{missing}: ...}} (found {', '.join(row)})."
        )
    number = row[names["id"]]
    if number is None or str(number).strip() == "":
        raise RowError("id is empty. Give every problem a name of its own.")
    text, answer = _text(row, names["problem"]), _answer(row, names["answer"])
    choices = _choices(names["choices"], row.get(names["choices"]))
    if choices is None:
        return Problem(str(number), text, answer)
    return Problem(str(number), text, _letter_among(choices, answer), choices, kind="choice")


def built_in_problem(dataset: HubDataset, row: Row, index: int, shuffle_seed: int) -> Problem:
    """The problem of row `index` of a built-in benchmark, which numbers it where the data set has no ids.

    `shuffle_seed` decides the order of the choices, question by question. Raises RowError.
    """
    for column in (dataset.problem, dataset.answer, *dataset.incorrect):
        if column not in row:
            raise RowError(
                f"column {column!r} is missing (found {', '.join(row)}). Use a copy of {dataset.hub_id} as published."
            )
    number = index if dataset.id is None or dataset.id not in row else row[dataset.id]
    text, answer = _text(row, dataset.problem), _answer(row, dataset.answer)
    if dataset.answer_after:
        answer = _after(dataset.answer_after, answer)
    if not dataset.incorrect:
        try:
            return Problem(str(number), text, KINDS[dataset.kind].normalize_gold(answer), kind=dataset.kind)
        except ValueError as error:
            raise RowError(str(error)) from None
    options = tuple(_text(row, column).strip() for column in (dataset.answer, *dataset.incorrect))
    order = permutation_of(str(number), len(options), shuffle_seed)
    letter = choice_letter(order.index(0))
    return Problem(str(number), text, letter, tuple(options[i] for i in order), order, dataset.kind)


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise RowError(f"{column} is {value!r} ({type(value).__name__}), but it must be text. Put it in quotes.")
    if not value.strip():
        raise RowError(f"{column} is empty. Write the text, or drop the row.")
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
    raise RowError(f"{column} is {value!r}, so nothing could be graded. Write the right answer, or drop the row.")


def _after(mark: str, answer: str) -> str:
    """The gold at the end of a worked solution."""
    _, found, gold = answer.rpartition(mark)
    if not found or not gold.strip():
        raise RowError(f"the answer {_shown(answer)} has nothing after {mark!r}. Use a copy of the data as published.")
    return gold.strip()


def _choices(column: str, value: Any) -> tuple[str, ...] | None:
    """The choices of a row, a list, or a JSON list as text, since CSV has no lists; None for an open question."""
    if value is None or value == "":
        return None
    try:
        listed = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        listed = None
    if (
        not isinstance(listed, list | tuple)
        or not 2 <= len(listed) <= MAX_CHOICES
        or not all(isinstance(c, str) and c.strip() for c in listed)
    ):
        raise RowError(
            f"{column} is {value!r}, but it must be a list of 2 to {MAX_CHOICES} texts (in CSV: a JSON list, such as "
            '["red", "blue"]). Drop it for open questions.'
        )
    if len(set(listed)) < len(listed):
        raise RowError(f"{column} is {value!r}: one text is listed twice, so two letters would be right. Correct it.")
    return tuple(listed)


def _letter_among(choices: tuple[str, ...], answer: str) -> str:
    letters = [choice_letter(index) for index in range(len(choices))]
    if answer in choices:
        return letters[choices.index(answer)]
    if answer.upper() in letters:
        return answer.upper()
    raise RowError(
        f"answer {answer!r} is neither one of the letters {letters[0]} to {letters[-1]} nor one of the choices."
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"...{text[-57:]}")
