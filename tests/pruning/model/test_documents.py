"""Rows of calibration data: what is no text, conversation or token ids is refused by line, rule and remedy."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pruning.model.checkpoint import Checkpoint
from pruning.model.documents import open_documents
from tests.support import ROOT

MODEL = ROOT / "examples" / "tiny" / "model"
FINE = [{"text": "1+1=2"}, {"messages": [{"role": "user", "content": "1+1"}]}, {"token_ids": [1, 2]}]


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return Checkpoint.open(MODEL)


def written(folder, rows):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_rows_of_three_kinds_may_stand_in_one_file(base, tmp_path):
    documents = open_documents(written(tmp_path, FINE), base)
    assert documents.tokens(2) == [1, 2]
    assert all(documents.tokens(index) for index in range(3))


def test_an_assistant_that_only_calls_tools_says_nothing(base, tmp_path):
    call = {"function": {"name": "add", "arguments": "{}"}}
    row = {
        "messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    }
    assert open_documents(written(tmp_path, [row]), base).rows == [row]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1"}, "needs an object with 'text', 'messages' or 'token_ids'"),
        (["text"], "needs an object with 'text', 'messages' or 'token_ids'"),
        ({"text": None}, "'text' must be a string, not null; correct or remove it"),
        ({"text": 7}, "'text' must be a string, not 7"),
        (
            {"messages": None},
            "'messages' must be a list of objects, each with a 'role' and a 'content' of text, not null",
        ),
        ({"messages": "1+1"}, "'messages' must be a list of objects"),
        ({"messages": []}, "'messages' must be a list of objects"),
        ({"messages": ["1+1"]}, "'messages' must be a list of objects"),
        ({"messages": [{"content": "1+1"}]}, "'messages' must be a list of objects"),
        ({"messages": [{"role": "user"}]}, "'messages' must be a list of objects"),
        ({"messages": [{"role": "user", "content": None}]}, "'messages' must be a list of objects"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "'messages' must be a list of objects"),
        ({"messages": [{"from": "human", "value": "1+1"}]}, "'messages' must be a list of objects"),
        ({"token_ids": None}, "'token_ids' must be a list of integers, not null"),
        ({"token_ids": "12"}, "'token_ids' must be a list of integers"),
        ({"token_ids": [1, None]}, "'token_ids' must be a list of integers"),
        ({"token_ids": [True]}, "'token_ids' must be a list of integers"),
        ({"token_ids": [10**30]}, "'token_ids' must be a list of integers"),
    ],
)
def test_malformed_row_is_named_with_rule_and_remedy(base, tmp_path, row, message):
    data = written(tmp_path, [*FINE, row])
    with pytest.raises(ValueError, match="line 4") as refused:
        open_documents(data, base)
    assert str(refused.value).startswith(f"{data}, line 4: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_only_the_models_own_template_can_refuse_is_named_when_it_is_read(tmp_path):
    shutil.copytree(MODEL, tmp_path / "model")
    template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}{{ nothing.x }}"
    )
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    rows = [{"messages": [{"role": role, "content": "1+1"}]} for role in ("assistant", "user")]
    documents = open_documents(written(tmp_path, rows), Checkpoint.open(tmp_path / "model"))
    cause = r"the model's chat template cannot render these messages"
    with pytest.raises(
        ValueError, match=rf"line 1: {cause} \(TemplateError: roles must alternate\); correct or remove"
    ):
        documents.tokens(0)
    with pytest.raises(ValueError, match=rf"line 2: {cause} \(UndefinedError: 'nothing' is undefined\)"):
        documents.tokens(1)


def test_null_of_a_parquet_file_is_named_by_row(base, tmp_path):
    pq.write_table(pa.table({"text": ["1+1", None]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet, row 2: 'text' must be a string, not null"):
        open_documents(str(tmp_path / "rows.parquet"), base)


def test_documents_of_a_text_file_are_what_blank_lines_separate(base, tmp_path):
    (tmp_path / "book.txt").write_bytes("\ufeff\n1+1\n  =2\n \t\n\n3\u20284\r\n\r\n5".encode())
    documents = open_documents(str(tmp_path / "book.txt"), base)
    assert [row["text"] for row in documents.rows] == ["1+1\n  =2", "3\u20284", "5"]
    assert documents.lines == [2, 6, 8]
    as_rows = open_documents(written(tmp_path, [{"text": "1+1\n  =2"}]), base)
    assert documents.tokens(0) == as_rows.tokens(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", b"\n", "has no rows"),
        ("latin.jsonl", b'{"text": "1"}\n{"text": "\xff"}\n', r"latin\.jsonl, line 2: not JSON"),
        ("none.txt", b" \n\n", r"none\.txt: has no text"),
        ("latin.txt", b"caf\xe9", r"latin\.txt: not UTF-8"),
        ("some.csv", b"text", r"some\.csv: unknown kind of calibration file; give \.jsonl, \.parquet, \.txt, \.npy or"),
        ("no.parquet", b"PAR1", r"no\.parquet: not a readable Parquet file"),
    ],
)
def test_unreadable_file_is_named(base, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_documents(str(tmp_path / name), base)
