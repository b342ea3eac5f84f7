"""The Arrow schemas of the store's tables, and rows to and from them. A new shape gets a new version, never an edit.

Promise committed-is-forever: parts of earlier versions stay readable; `upgrade` computes the columns they lack.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.rows.tables import DrawRow, FailureRow, GradeRow, LoopRow

DRAWS_VERSION, GRADES_VERSION, FAILURES_VERSION, LOOPS_VERSION = 3, 2, 1, 1

ANSWER = pa.struct(
    [
        ("cut", pa.int32()),
        ("forced", pa.bool_()),
        ("thinking_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
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
        ("loop_at", pa.int32()),
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

LOOPS = pa.schema(
    [
        ("context_id", pa.string()),
        ("prompt_id", pa.string()),
        ("seed", pa.int64()),
        ("trace_tokens", pa.int32()),
        ("loop_at", pa.int32()),
    ],
    metadata={"prunesweep.table": "loops", "prunesweep.version": str(LOOPS_VERSION)},
)

GRADES_1 = pa.schema([field for field in GRADES if field.name != "rule"])
"""Version 1 did not say where an answer was found."""

_ANSWER_2 = pa.struct([field for field in ANSWER if field.name != "answer_tokens"])
DRAWS_2 = pa.schema(
    [
        pa.field("answers", pa.list_(_ANSWER_2)) if field.name == "answers" else field
        for field in DRAWS
        if field.name != "loop_at"
    ]
)
"""Version 2 had neither `loop_at`, which is null in its rows, nor `answers.answer_tokens`, the length of their ids."""
DRAWS_1 = pa.schema([field for field in DRAWS_2 if field.name != "trace_tokens"])
"""Version 1 had no `trace_tokens` either, the length of `trace_ids`."""

TABLES: dict[str, pa.Schema] = {"draws": DRAWS, "grades": GRADES, "failures": FAILURES, "loops": LOOPS}
_COMPUTED_FROM = {
    "trace_tokens": "trace_ids",
    "loop_at": "start",
    "answers.answer_tokens": "answers.token_ids",
    "rule": "extracted",
}
"""A column that earlier versions lack -> the one that `upgrade` fills it in from; of `start` and `extracted` it needs
the number of rows."""

AnyRow = DrawRow | GradeRow | FailureRow | LoopRow


def to_table(rows: Sequence[AnyRow], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of `schema`."""
    return pa.Table.from_pylist([_as_dict(row) for row in rows], schema=schema)


def _as_dict(row: AnyRow) -> dict[str, Any]:
    plain = asdict(row)
    if isinstance(row, DrawRow):
        plain["trace_tokens"] = len(row.trace_ids)
        for answer in plain["answers"]:
            answer["answer_tokens"] = len(answer["token_ids"])
    return plain


def is_readable(found: pa.Schema, expected: pa.Schema) -> bool:
    """Whether a file has the schema of this or of an earlier version."""
    return any(_same_shape(found, schema) for schema in (expected, *_earlier(expected)))


def _earlier(schema: pa.Schema) -> tuple[pa.Schema, ...]:
    return (DRAWS_2, DRAWS_1) if schema is DRAWS else (GRADES_1,) if schema is GRADES else ()


def stored_columns(found: pa.Schema, columns: Sequence[str]) -> list[str]:
    """The columns to read from a file of a readable schema so that `upgrade` can give `columns`."""
    return list(dict.fromkeys(name if _has_column(found, name) else _COMPUTED_FROM[name] for name in columns))


def upgrade(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """A table of the `stored_columns` as a table of the columns `columns`."""
    tops = list(dict.fromkeys(name.split(".")[0] for name in columns))
    if "trace_tokens" in tops and "trace_tokens" not in table.column_names:
        table = table.append_column("trace_tokens", pc.list_value_length(table["trace_ids"]).cast(pa.int32()))
    if "rule" in tops and "rule" not in table.column_names:
        table = table.append_column("rule", pa.repeat(pa.scalar("", pa.string()), table.num_rows))
    if "loop_at" in tops and "loop_at" not in table.column_names:
        table = table.append_column("loop_at", pa.nulls(table.num_rows, pa.int32()))
    if "answers" in columns or "answers.answer_tokens" in columns:
        table = _with_answer_tokens(table, [name.removeprefix("answers.") for name in columns if "answers." in name])
    return table.select(tops)


def _with_answer_tokens(table: pa.Table, fields: Sequence[str]) -> pa.Table:
    """The table with `answer_tokens` in its answers, of which it keeps `fields`, or every field if there are none."""
    place = table.column_names.index("answers")
    if table.schema.field(place).type.value_type.get_field_index("answer_tokens") >= 0:
        return table
    nested = table["answers"].combine_chunks()
    answers = nested.flatten()
    lengths = pc.list_value_length(answers.field("token_ids")).cast(pa.int32())
    kept = [field for field in ANSWER if not fields or field.name in fields]
    columns = [lengths if field.name == "answer_tokens" else answers.field(field.name) for field in kept]
    counts = np.append(0, np.cumsum(pc.list_value_length(nested).to_numpy(zero_copy_only=False)))
    offsets = pa.array(counts.astype(np.int32))
    structs = pa.StructArray.from_arrays(columns, fields=kept)
    return table.set_column(place, "answers", pa.ListArray.from_arrays(offsets, structs))


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
    """Whether `schema` has a column, or a field of the answers."""
    head, _, field = column.partition(".")
    if head not in schema.names or not field:
        return head in schema.names
    kind = schema.field(head).type
    return pa.types.is_list(kind) and kind.value_type.get_field_index(field) >= 0
