"""The store on real files: what is committed is whole, stays, and is all that a reader ever sees."""

import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.store.compaction import compact
from orchestrator.store.store import Store, StoreError, load_draws
from pruning.patch.manifest import MANIFEST
from tests.support import ROOT
from tests.support.builders import make_failure, make_grade, make_row
from workers.rows.tables import DrawRow


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def plain(row: object) -> dict:
    """A row as the store gives it back: tuples are lists there."""

    def listed(value: object) -> object:
        if isinstance(value, dict):
            return {key: listed(item) for key, item in value.items()}
        return [listed(item) for item in value] if isinstance(value, list | tuple) else value

    fields = listed(asdict(row))
    if isinstance(row, DrawRow):
        fields["trace_tokens"] = len(row.trace_ids)
        for answer in fields["answers"]:
            answer["answer_tokens"] = len(answer["token_ids"])
    return fields


def parts(store: Store) -> list[Path]:
    return sorted(Path(store.root, "draws", "c").iterdir())


def test_draws_written_are_read_back_field_by_field(store: Store) -> None:
    rows = [make_row(prompt="p0"), make_row(trace=(), cuts=(2, 4), start=4, prompt="p1", seed=2**32 - 1)]
    store.commit_draws(rows)
    assert store.read("draws", "c").to_pylist() == [plain(row) for row in rows]


def test_grades_and_failures_written_are_read_back_field_by_field(store: Store) -> None:
    store.commit_grades([make_grade("p0"), make_grade("p1")])
    failures = [make_failure("p0", "c"), make_failure("p1", "d")]
    store.commit_failures(failures)
    assert store.read("grades", "c").to_pylist() == [plain(make_grade("p0")), plain(make_grade("p1"))]
    assert store.read("failures", "c").to_pylist() == [plain(failures[0])]
    assert store.read("failures", "d").to_pylist() == [plain(failures[1])]
    assert store.contexts("failures") == {"c", "d"}


def test_every_commit_is_a_part_of_its_own_and_none_is_changed(store: Store) -> None:
    store.commit_draws([make_row(prompt="p0")])
    (first,) = parts(store)
    content = first.read_bytes()
    store.commit_draws([make_row(prompt="p0")])
    assert len(parts(store)) == 2
    assert first.read_bytes() == content
    assert store.stored_draws("c") == {("c", "p0", 0)}


def test_chosen_columns_are_read_alone(store: Store) -> None:
    store.commit_draws([make_row(cuts=(2, 4))])
    assert store.read("draws", "c", ["seed", "limit"]).to_pylist() == [{"seed": 0, "limit": 4}]
    assert store.read("draws", "c", ["answers.cut"]).to_pylist() == [{"answers": [{"cut": 2}, {"cut": 4}]}]


def test_context_without_parts_reads_as_an_empty_table_of_the_same_columns(store: Store) -> None:
    assert store.read("draws", "nowhere").num_rows == 0
    assert store.read("draws", "nowhere", ["seed"]).column_names == ["seed"]
    assert load_draws(store).num_rows == 0
    assert store.contexts() == frozenset()


def test_column_that_does_not_exist_is_named_with_those_that_do(store: Store) -> None:
    with pytest.raises(ValueError, match=r"no column 'tokens'.*trace_ids"):
        store.read("draws", "c", ["tokens"])


VERSION_1 = pa.schema(
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
        (
            "answers",
            pa.list_(
                pa.struct(
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
            ),
        ),
        ("weights_digest", pa.string()),
        ("engine", pa.string()),
        ("worker", pa.string()),
        ("created_at", pa.float64()),
    ],
    metadata={"prunesweep.table": "draws", "prunesweep.version": "1"},
)
"""The shape of draws as it was first written, spelled out: parts of it are out there."""


VERSION_2 = pa.schema(
    [*list(VERSION_1)[:10], pa.field("trace_tokens", pa.int32()), *list(VERSION_1)[10:]],
    metadata={"prunesweep.table": "draws", "prunesweep.version": "2"},
)


@pytest.mark.parametrize("schema", [VERSION_1, VERSION_2], ids=["1", "2"])
def test_part_of_an_earlier_version_is_read_beside_those_of_today_and_compacted_with_them(
    store: Store, schema: pa.Schema
) -> None:
    old, new = make_row(trace=(1, 2, 3), cuts=(2, 3), prompt="old"), make_row(prompt="new", loop_at=4)
    bare = make_row(trace=(), cuts=(), prompt="bare")
    folder = Path(store.root, "draws", "c")
    folder.mkdir(parents=True)
    stored = [{**asdict(row), "trace_tokens": len(row.trace_ids)} for row in (bare, old)]
    pq.write_table(pa.Table.from_pylist(stored, schema=schema), folder / f"{0:032x}.parquet", compression="zstd")
    store.commit_draws([new])
    unknown = {"loop_at": None}
    for _ in range(2):
        assert store.read("draws", "c").to_pylist() == [plain(bare) | unknown, plain(old) | unknown, plain(new)]
        assert store.read("draws", "c", ["trace_tokens"])["trace_tokens"].to_pylist() == [0, 3, 4]
        assert store.read("draws", "c", ["loop_at"])["loop_at"].to_pylist() == [None, None, 4]
        assert store.read("draws", "c", ["trace_tokens", "trace_ids"]).column_names == ["trace_tokens", "trace_ids"]
        assert store.read("draws", "c", ["answers.answer_tokens", "answers.cut"])["answers"].to_pylist() == [
            [],
            [{"cut": 2, "answer_tokens": 3}, {"cut": 3, "answer_tokens": 3}],
            [{"cut": 4, "answer_tokens": 3}],
        ]
        compact(store, "draws", "c")
    assert store.reported == set()
    assert len(parts(store)) == 1


def truncated(file: Path, good: bytes) -> None:
    file.write_bytes(good[: len(good) // 2])


def empty(file: Path, good: bytes) -> None:
    file.write_bytes(b"")


def foreign(file: Path, good: bytes) -> None:
    pq.write_table(pa.table({"x": [1]}), file)


def text(file: Path, good: bytes) -> None:
    file.write_text("a note that somebody left here\n")


@pytest.mark.parametrize("damage", [truncated, empty, foreign, text])
def test_damaged_file_is_ignored_and_reported_by_name(store: Store, damage: Callable[[Path, bytes], None]) -> None:
    store.commit_draws([make_row(prompt="p0")])
    store.commit_draws([make_row(prompt="p1")])
    bad = parts(store)[0].with_name("damaged.parquet")
    damage(bad, parts(store)[0].read_bytes())
    assert store.stored_draws("c") == {("c", "p0", 0), ("c", "p1", 0)}
    assert len(store.reported) == 1
    assert str(bad) in next(iter(store.reported))
    assert "ignored" in next(iter(store.reported))


def test_temporary_file_of_a_writer_that_died_is_not_seen_and_not_reported(store: Store) -> None:
    store.commit_draws([make_row()])
    parts(store)[0].with_name(".0123.tmp").write_bytes(b"half a pa")
    assert store.read("draws", "c").num_rows == 1
    assert store.reported == set()


def test_reader_beside_writers_sees_whole_parts_only_and_never_fewer(store: Store) -> None:
    def write(writer: int) -> None:
        for seed in range(15):
            store.commit_draws([make_row(prompt=f"p{writer}", seed=seed), make_row(prompt=f"q{writer}", seed=seed)])

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for thread in writers:
        thread.start()
    reader, seen = Store.open(store.uri), frozenset()
    while any(thread.is_alive() for thread in writers):
        now = reader.stored_draws("c")
        assert seen <= now
        assert len(now) % 2 == 0
        seen = now
    assert len(reader.stored_draws("c")) == 90
    assert reader.reported == set()
    assert all(not part.name.startswith(".") for part in parts(store))


def test_patch_is_there_when_its_manifest_is_and_not_before(store: Store, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / MANIFEST).write_text("{}")
    (made / "layer-00000.safetensors").write_bytes(b"bits")
    half = Path(store.root, "patches", "half")
    half.mkdir(parents=True)
    (half / "layer-00000.safetensors").write_bytes(b"bits")
    assert store.patch_ids() == frozenset()
    store.publish_patch(made, "half")
    assert store.patch_ids() == {"half"}
    fetched = store.fetch_patch("half", tmp_path / "cache")
    assert sorted(file.name for file in fetched.iterdir()) == ["layer-00000.safetensors", MANIFEST]


def test_patch_whose_publishing_broke_off_is_not_there(store: Store, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "zzz-a-folder-cannot-be-read").mkdir(parents=True)
    (made / MANIFEST).write_text("{}")
    with pytest.raises(OSError, match="zzz"):
        store.publish_patch(made, "patch")
    assert store.patch_ids() == frozenset()


def test_patch_that_is_there_is_kept(store: Store, tmp_path: Path) -> None:
    for content in ("first", "second"):
        made = tmp_path / content
        made.mkdir()
        (made / MANIFEST).write_text(content)
        store.publish_patch(made, "patch")
    assert (store.fetch_patch("patch", tmp_path) / MANIFEST).read_text() == "first"


def test_pickled_store_writes_to_the_same_place(store: Store) -> None:
    store.commit_draws([make_row(prompt="p0")])  # opens the file system, which does not pickle
    store.read("draws", "c")
    copy = pickle.loads(pickle.dumps(store))
    copy.commit_draws([make_row(prompt="p1")])
    assert store.stored_draws("c") == {("c", "p0", 0), ("c", "p1", 0)}
    assert copy == store


def test_writable_store_is_left_as_it_was_found(store: Store) -> None:
    store.check_writable()
    assert list(Path(store.root).iterdir()) == []


def test_store_of_an_unknown_kind_is_refused_with_the_kinds_there_are() -> None:
    with pytest.raises(StoreError, match=r"nowhere://x.*local path or s3://"):
        Store.open("nowhere://x")


def test_load_draws_gives_all_contexts_in_one_table(store: Store) -> None:
    store.commit_draws([make_row(prompt="p0")])
    store.commit_draws([make_row(prompt="p1")])
    assert sorted(load_draws(store.uri, ["prompt_id"])["prompt_id"].to_pylist()) == ["p0", "p1"]
    assert load_draws(store).num_rows == 2


def test_payload_is_kept_as_first_written(store: Store) -> None:
    store.put_payload("id", {"a": 1})
    store.put_payload("id", {"a": 2})
    assert store.payload("id") == {"a": 1}
    assert store.payload("other") is None


def test_recipes_of_the_docs_run(store: Store) -> None:
    """Every Python line of docs/store.md, on another store; without those for DuckDB, which is no dependency."""
    store.commit_draws([make_row(prompt="p0"), make_row(prompt="p1")])
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "store.md").read_text(), re.DOTALL)
    code = "\n".join(line for block in blocks for line in block.splitlines() if "duckdb" not in line)
    names: dict[str, Any] = {}
    exec(code.replace("/shared/sweeps", store.uri), names)
    assert names["frame"]["problem_id"].tolist() == ["problem-p0", "problem-p1"]
    assert names["draws"].column_names == ["benchmark", "trace_tokens"]


def test_store_is_imported_without_the_libraries_of_workers_and_views() -> None:
    heavy = ["torch", "ray", "vllm", "mlflow", "transformers", "pandas", "scipy", "sympy"]
    script = f"import sys, orchestrator.store; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
