"""The rows of a benchmark file, as its columns have them: JSON Lines, Parquet or CSV."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
FILE_FORMATS = (".jsonl", ".parquet", ".csv")


def read_rows(path: Path) -> Iterable[Row]:
    """The rows of a file. In CSV every value is text: `007`, `1e3` and `1.0` stay what they are, quoted or not.

    Raises `ValueError` naming the file, and the line where there is one, if it is missing or malformed.
    """
    if not path.is_file():
        raise ValueError(f"benchmark file {path} does not exist (looked from {Path.cwd()}). Correct the path.")
    if path.suffix == ".jsonl":
        return _read_jsonl(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix == ".csv":
        return _read_csv(path)
    raise ValueError(f"benchmark file {path} is not one of {', '.join(FILE_FORMATS)}. Convert it.")


def _read_jsonl(path: Path) -> Iterable[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}). Write it again in UTF-8.") from None
    # Split on newlines only: str.splitlines would also split at U+2028, which JSON strings may contain.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}). One object per line is expected.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a {type(row).__name__} where one object per line is expected.")
        yield row


# pyarrow is imported where it is used because it is slow, and JSONL files, the common case, do not need it.
def _read_parquet(path: Path) -> Iterable[Row]:
    from pyarrow import ArrowException, parquet

    try:
        return list(parquet.read_table(path).to_pylist())
    except ArrowException as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error}). Write it again.") from None


def _read_csv(path: Path) -> Iterable[Row]:
    from pyarrow import ArrowException, csv, string

    parse = csv.ParseOptions(newlines_in_values=True)
    try:
        with csv.open_csv(path, parse_options=parse) as opened:
            texts = dict.fromkeys(opened.schema.names, string())
        convert = csv.ConvertOptions(column_types=texts)
        return list(csv.read_csv(path, parse_options=parse, convert_options=convert).to_pylist())
    except ArrowException as error:
        raise ValueError(
            f"{path}: not a readable CSV file ({error}). Write it in UTF-8, with a header line and commas."
        ) from None
