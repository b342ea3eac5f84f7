"""The stored columns: frozen, and the same as the fields of the rows that workers commit."""

from dataclasses import fields

import pyarrow as pa
import pytest

from eval.draws import Answer
from orchestrator.store.tables import ANSWER, DRAWS, FAILURES, GRADES, LOOPS
from workers.rows.tables import DrawRow, FailureRow, GradeRow, LoopRow

FROZEN = {
    "draws": (
        "context_id: string, answer_context_id: string, prompt_id: string, seed: int64, benchmark: string, "
        "problem_id: string, prompt_ids: list<item: int32>, start: int32, limit: int32, trace_ids: list<item: int32>, "
        "trace_tokens: int32, loop_at: int32, trace_text: string, ended: bool, derived_seed: bool, waits: int32, "
        "answers: list<item: struct<cut: int32, forced: bool, thinking_tokens: int32, answer_tokens: int32, "
        "token_ids: list<item: int32>, text: string, cap_hit: bool, finish_reason: string, reopened_thinking: bool>>, "
        "weights_digest: string, engine: string, worker: string, created_at: double"
    ),
    "grades": (
        "context_id: string, answer_context_id: string, prompt_id: string, seed: int64, cut: int32, gold_id: string, "
        "grader: string, verdict: string, extracted: string, cause: string, rule: string"
    ),
    "failures": (
        "context_id: string, prompt_id: string, seed: int64, benchmark: string, problem_id: string, kind: string, "
        "cause: string, attempts: int32, log: string, created_at: double"
    ),
    "loops": "context_id: string, prompt_id: string, seed: int64, trace_tokens: int32, loop_at: int32",
}
"""Another shape is another version (see `upgrade`), never an edit of these."""


@pytest.mark.parametrize(("schema", "version"), [(DRAWS, 3), (GRADES, 2), (FAILURES, 1), (LOOPS, 1)])
def test_schema_is_frozen(schema: pa.Schema, version: int) -> None:
    name = schema.metadata[b"prunesweep.table"].decode()
    assert ", ".join(f"{field.name}: {field.type}" for field in schema) == FROZEN[name]
    assert schema.metadata == {b"prunesweep.table": name.encode(), b"prunesweep.version": str(version).encode()}


def test_every_field_of_a_row_has_a_column_and_every_column_a_field() -> None:
    """Arrow drops fields that have no column without an error."""
    assert [name for name in DRAWS.names if name != "trace_tokens"] == [field.name for field in fields(DrawRow)]
    assert GRADES.names == [field.name for field in fields(GradeRow)]
    assert FAILURES.names == [field.name for field in fields(FailureRow)]
    assert LOOPS.names == [field.name for field in fields(LoopRow)]
    assert [field.name for field in ANSWER if field.name != "answer_tokens"] == [field.name for field in fields(Answer)]
