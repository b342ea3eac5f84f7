"""The Arrow schemas of the store's tables, and rows to and from them. A new shape gets a new version, never an edit."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from workers.messages import DrawRow, FailureRow, GradeRow

VERSION = 1

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
    metadata={"prunesweep.table": "draws", "prunesweep.version": str(VERSION)},
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
    ],
    metadata={"prunesweep.table": "grades", "prunesweep.version": str(VERSION)},
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
    metadata={"prunesweep.table": "failures", "prunesweep.version": str(VERSION)},
)

TABLES: dict[str, pa.Schema] = {"draws": DRAWS, "grades": GRADES, "failures": FAILURES}


def to_table(rows: Sequence[DrawRow] | Sequence[GradeRow] | Sequence[FailureRow], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of `schema`."""
    return pa.Table.from_pylist([_plain(row) for row in rows], schema=schema)


def is_current(found: pa.Schema, expected: pa.Schema) -> bool:
    """Whether a file that was read has the shape this version writes."""
    return bool(found.remove_metadata().equals(expected.remove_metadata()))


def _plain(row: DrawRow | GradeRow | FailureRow) -> dict[str, Any]:
    return asdict(row)


def column_names(schema: pa.Schema, wanted: Iterable[str] | None) -> list[str]:
    """`wanted` if every one is a column, else ValueError naming the one that is not."""
    names = list(schema.names) if wanted is None else list(wanted)
    for name in names:
        if name.split(".")[0] not in schema.names:
            raise ValueError(f"there is no column {name!r}; the columns are {', '.join(schema.names)}")
    return names
