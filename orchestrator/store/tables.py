"""The Arrow schemas of the store's tables, and rows to and from them. A new shape gets a new version, never an edit.

Promise committed-is-forever: parts of earlier versions stay readable; `upgrade` computes the columns they lack.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from workers.rows.tables import DrawRow, FailureRow, GradeRow

DRAWS_VERSION, GRADES_VERSION, FAILURES_VERSION = 2, 2, 1

ANSWER = pa.struct(
    [
        ("cut", pa.int32()),
        ("forced", pa.bool_()),
        ("thinking_tokens", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("cap_hit", pa.bool_()),
        ("finish_reason", pa.string()),
        ("reopened_thinking", pa.bool_()),
    ]
)

DRAWS = pa.schema(
    [
        ("context_id", pa.string()),
        ("answer_context_id", pa.string()),
        ("prompt_id", pa.string()),
        ("seed", pa.int64()),
        ("benchmark", pa.string()),
        ("problem_id", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("start", pa.int32()),
        ("limit", pa.int32()),
        ("trace_ids", pa.list_(pa.int32())),
        ("trace_tokens", pa.int32()),
        ("trace_text", pa.string()),
        ("ended", pa.bool_()),
        ("derived_seed", pa.bool_()),
        ("waits", pa.int32()),
        ("answers", pa.list_(ANSWER)),
        ("weights_digest", pa.string()),
        ("engine", pa.string()),
        ("worker", pa.string()),
        ("created_at", pa.float64()),
    ],
    metadata={"prunesweep.table": "draws", "prunesweep.version": str(DRAWS_VERSION)},
)

GRADES = pa.schema(
    [
        ("context_id", pa.string()),
        ("answer_context_id", pa.string()),
        ("prompt_id", pa.string()),
        ("seed", pa.int64()),
        ("cut", pa.int32()),
        ("gold_id", pa.string()),
        ("grader", pa.string()),
        ("verdict", pa.string()),
        ("extracted", pa.string()),
        ("cause", pa.string()),
        ("rule", pa.string()),
    ],
    metadata={"prunesweep.table": "grades", "prunesweep.version": str(GRADES_VERSION)},
)

FAILURES = pa.schema(
    [
        ("context_id", pa.string()),
        ("prompt_id", pa.string()),
        ("seed", pa.int64()),
        ("benchmark", pa.string()),
        ("problem_id", pa.string()),
        ("kind", pa.string()),
        ("cause", pa.string()),
        ("attempts", pa.int32()),
        ("log", pa.string()),
        ("created_at", pa.float64()),
    ],
    metadata={"prunesweep.table": "failures", "prunesweep.version": str(FAILURES_VERSION)},
)

DRAWS_1 = pa.schema([field for field in DRAWS if field.name != "trace_tokens"])
"""Version 1 had no `trace_tokens`, the length of `trace_ids`."""

GRADES_1 = pa.schema([field for field in GRADES if field.name != "rule"])
"""Version 1 did not say where an answer was found."""

LACKED = {"trace_tokens": "trace_ids", "rule": "extracted"}
"""A column that earlier versions lack -> the one to read for it."""

TABLES: dict[str, pa.Schema] = {"draws": DRAWS, "grades": GRADES, "failures": FAILURES}


def to_table(rows: Sequence[DrawRow] | Sequence[GradeRow] | Sequence[FailureRow], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of `schema`."""
    return pa.Table.from_pylist([_as_dict(row) for row in rows], schema=schema)


def _as_dict(row: DrawRow | GradeRow | FailureRow) -> dict[str, Any]:
    plain = asdict(row)
    return plain | {"trace_tokens": len(row.trace_ids)} if isinstance(row, DrawRow) else plain


def is_readable(found: pa.Schema, expected: pa.Schema) -> bool:
    """Whether a file has the schema of this or of an earlier version."""
    return any(_same_shape(found, schema) for schema in (expected, *_earlier(expected)))


def _earlier(schema: pa.Schema) -> tuple[pa.Schema, ...]:
    return (DRAWS_1,) if schema is DRAWS else (GRADES_1,) if schema is GRADES else ()


def stored_columns(found: pa.Schema, columns: Sequence[str]) -> list[str]:
    """The columns to read from a file of a readable schema so that `upgrade` can give `columns`."""
    return list(dict.fromkeys(name if _has_column(found, name) else LACKED[name] for name in columns))


def upgrade(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """A table of the `stored_columns` as a table of the columns `columns`."""
    tops = list(dict.fromkeys(name.split(".")[0] for name in columns))
    if "trace_tokens" in tops and "trace_tokens" not in table.column_names:
        table = table.append_column("trace_tokens", pc.list_value_length(table["trace_ids"]).cast(pa.int32()))
    if "rule" in tops and "rule" not in table.column_names:
        table = table.append_column("rule", pa.repeat(pa.scalar("", pa.string()), table.num_rows))
    return table.select(tops)


def column_names(schema: pa.Schema, columns: Iterable[str] | None) -> list[str]:
    """`columns`, or every column for None. Raises ValueError naming one that does not exist."""
    names = list(schema.names) if columns is None else list(columns)
    for name in names:
        if not _has_column(schema, name):
            raise ValueError(f"there is no column {name!r}; the columns are {', '.join(schema.names)}")
    return names


def leaf(schema: pa.Schema, column: str) -> str:
    """`answers.cut` as Parquet spells it, where a list's elements are two levels further down."""
    head, _, field = column.partition(".")
    return f"{head}.list.element.{field}" if field and pa.types.is_list(schema.field(head).type) else column


def _same_shape(found: pa.Schema, expected: pa.Schema) -> bool:
    return bool(found.remove_metadata().equals(expected.remove_metadata()))


def _has_column(schema: pa.Schema, column: str) -> bool:
    return column.split(".")[0] in schema.names
