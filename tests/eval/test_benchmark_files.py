"""Files of rows: what is written in a cell is what is read, and what cannot be read is named."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.benchmark_files import read_rows

NUMERALS = ["007", "1e3", "1.0", "+5", "-0", "true", "NA", "null", "2024-01-01", "1,200", "", " 7"]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_csv_cells_are_text_as_written_whether_quoted_or_not(tmp_path: Path, quoting: int) -> None:
    file = tmp_path / "answers.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=quoting)
        writer.writerows([["id", "answer"], *([str(number), text] for number, text in enumerate(NUMERALS))])
    assert [row["answer"] for row in read_rows(file)] == NUMERALS
    assert [row["id"] for row in read_rows(file)] == [str(number) for number in range(len(NUMERALS))]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_csv_of_any_text_is_read_as_pythons_own_reader_does(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("csv") / "any.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([["id", "answer"], *rows])
    with file.open(newline="", encoding="utf-8") as stream:
        assert list(read_rows(file)) == list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("ragged.csv", b"id,answer\n1,2,3\n", r"ragged\.csv: not a readable CSV file .*2 columns, got 3"),
        ("latin.csv", b"id,answer\n1,caf\xe9\n", r"latin\.csv: not a readable CSV file .*UTF"),
        ("none.csv", b"", r"none\.csv: not a readable CSV file"),
        ("no.parquet", b"PAR1", r"no\.parquet: not a readable Parquet file"),
        ("latin.jsonl", b'{"id": "caf\xe9"}\n', r"latin\.jsonl: not UTF-8"),
        ("list.jsonl", b"{}\n[]\n", r"list\.jsonl, line 2: a list where one object per line"),
        ("sheet.xlsx", b"", r"sheet\.xlsx is not one of \.jsonl, \.parquet, \.csv"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        list(read_rows(tmp_path / name))


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    for name, text in (("bom.csv", "id,answer\n1,007\n"), ("bom.jsonl", '{"id": "1", "answer": "007"}\n')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert list(read_rows(tmp_path / name)) == [{"id": "1", "answer": "007"}]
