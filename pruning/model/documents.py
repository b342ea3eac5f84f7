"""Documents to calibrate on: rows of a file or of a hub data set, and the tokens of each.

A row has `token_ids`, chat `messages` or `text`. The rows of a file are checked when it is read, those of a hub data
set when they are drawn. The documents of a plain text file are what blank lines separate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pruning.model.checkpoint import Checkpoint
from pruning.model.hub import HubUnreachable, cached_only, unreachable

COLUMNS: Final = ("token_ids", "messages", "text")
"""What a row may hold; of several the first in this order counts."""

_C4: Final = ("allenai/c4", {"data_files": {"train": "en/c4-train.00000-of-01024.json.gz"}}, "train")
_HUB: Final = {"c4": _C4, "pg19": ("emozilla/pg19", {}, "validation")}
"""Name -> hub repository, options and default split: C4's first shard (wanda, OWL), PG19's validation books
(ShortGPT).
"""


@dataclass(frozen=True)
class Documents:
    """A sequence of documents, tokenised one at a time on demand. `lines`: where each row stands in its file."""

    rows: Sequence[Any]
    tokenizer: Any
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, index: int) -> list[int]:
        """Token ids of one row: its `token_ids`, its `messages` through the chat template, or its `text`.

        Raises ValueError naming the row if it is malformed, or if tokenizer or template refuse it.
        """
        from jinja2 import TemplateError

        row = self.rows[index]
        place = f"row {index + 1}" if self.lines is None else f"line {self.lines[index]}"
        if problem := complaint(row):
            raise ValueError(f"{place}: {problem}")
        if "token_ids" in row:
            return list(row["token_ids"])
        try:
            if "messages" in row:
                encoded = self.tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)
                return list(encoded["input_ids"])
            return list(self.tokenizer(row["text"])["input_ids"])
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
            # A template is a program of the model's makers, and fails in any of these ways on what it does not expect.
            what = "chat template cannot render these messages" if "messages" in row else "tokenizer cannot read it"
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{place}: the model's {what} ({type(error).__name__}: {reason}); correct or remove it."
            ) from None


def complaint(row: object) -> str | None:
    """The rule that a row breaks and the remedy, or None."""
    column = next((name for name in COLUMNS if name in row), None) if isinstance(row, dict) else None
    if not isinstance(row, dict) or column is None:
        return "needs an object with 'text', 'messages' or 'token_ids'."
    value = row[column]
    if column == "text":
        fine, rule = isinstance(value, str), "must be a string"
    elif column == "messages":
        fine = isinstance(value, list) and bool(value) and all(map(_is_message, value))
        rule = "must be a list of objects, each with a 'role' and a 'content' of text"
    else:
        fine, rule = isinstance(value, list) and all(map(_is_token, value)), "must be a list of integers"
    return None if fine else f"{column!r} {rule}, not {_shown(value)}; correct or remove it."


def _is_message(value: object) -> bool:
    """Whether a chat template can make text of a message: an assistant that only calls tools says nothing. Templates of
    text models print a list of parts as Python does, so that is none.
    """
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        return False
    return isinstance(value.get("content"), str) or bool(value.get("tool_calls"))


def _is_token(value: object) -> bool:
    return type(value) is int and abs(value) < 1 << 62  # a bool is an int, too; the vocabulary is checked later


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's own tokenizer. Raises ValueError if the folder has none."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").is_file() and not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: no tokenizer; copy tokenizer.json and tokenizer_config.json beside config.json.")
    return AutoTokenizer.from_pretrained(folder)


def open_documents(data: str, checkpoint: Checkpoint) -> Documents:
    """The documents that `CalibrationSpec.data` names, other than a tokens.npy.

    Raises ValueError for a missing or malformed source, naming it and, in a file, the line or row.
    """
    file = Path(data)
    if file.suffix in _READERS:
        if not file.is_file():
            raise ValueError(f"{file}: no such file.")
        rows, lines = _READERS[file.suffix](file)
        if not rows:
            raise ValueError(f"{file}: has no {'text' if file.suffix == '.txt' else 'rows'}.")
        ready = all("token_ids" in row for row in rows)
        return Documents(rows, None if ready else load_tokenizer(checkpoint.path), lines)
    if file.suffix or file.exists():
        raise ValueError(
            f"{data}: unknown kind of calibration file; give .jsonl, .parquet, .txt, .npy or a hub dataset id."
        )
    return Documents(_hub(data), load_tokenizer(checkpoint.path))


def _jsonl(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a file, and the number of the line of each."""
    rows, lines = [], []
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: not JSON ({error}).") from None
            if problem := complaint(row):
                raise ValueError(f"{file}, line {number}: {problem}")
            rows.append(row)
            lines.append(number)
    return rows, lines


def _text(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The documents of a plain text file, and the number of the first line of each."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error}); write it again in UTF-8.") from None
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    paragraph: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            rows.append({"text": "\n".join(paragraph)})
            lines.append(number - len(paragraph))
            paragraph = []
    return rows, lines


def _parquet(file: Path) -> tuple[list[dict[str, Any]], None]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(file).names
        column = next((name for name in COLUMNS if name in names), None)
        if column is None:
            raise ValueError(f"{file}: needs a column 'token_ids', 'messages' or 'text', has {', '.join(names)}.")
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file, columns=[column]).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{file}: not a readable Parquet file ({error}); write it again.") from None
    for number, row in enumerate(rows, 1):
        if problem := complaint(row):
            raise ValueError(f"{file}, row {number}: {problem}")
    return rows, None


_READERS: Final[Mapping[str, Callable[[Path], tuple[list[dict[str, Any]], list[int] | None]]]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".txt": _text,
}
"""Suffix -> reads a file's rows, and the line of each where it has lines."""


def _hub(data: str) -> Sequence[Any]:
    import datasets

    name, _, split = data.partition(":")
    repository, options, default = _HUB.get(name, (name, {}, "train"))
    offline = unreachable()
    try:
        with cached_only() if offline else nullcontext():
            found: Sequence[Any] = datasets.load_dataset(repository, split=split or default, **options)
    except (OSError, ValueError, RuntimeError) as error:
        if offline:
            raise HubUnreachable(
                f"{data}: hub dataset {repository!r} is not in the local Hugging Face cache, and {offline}; load it "
                "where there is a network, share HF_HOME, or give calibration.data as a file"
            ) from None
        raise ValueError(f"{data}: cannot load hub dataset {repository!r} ({error}).") from None
    return found
