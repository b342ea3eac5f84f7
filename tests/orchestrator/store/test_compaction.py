"""Compaction: fewer files, and never a reader that sees less or double, whatever dies and whoever runs at once."""

import contextlib
import itertools
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.store.compaction import compact, compact_finished, compacted_name
from orchestrator.store.files import Files
from orchestrator.store.parts import distinct, encode
from orchestrator.store.store import Store, load_draws
from orchestrator.store.tables import TABLES
from orchestrator.sweep import tidy
from tests.support.builders import make_failure, make_grade, make_row
from workers.rows.tables import LoopRow


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def files(store: Store, table: str = "draws") -> list[Path]:
    return sorted(Path(store.root, table, "c").iterdir())


def test_parts_of_a_context_become_one_that_reads_the_same(store: Store) -> None:
    for number in range(5):
        store.commit_draws([make_row(prompt=f"p{number}"), make_row(prompt=f"q{number}", cuts=(2, 4))])
    before = store.read("draws", "c")
    assert compact(store, "draws", "c") == 4
    assert len(files(store)) == 1
    assert store.read("draws", "c").equals(before)
    assert load_draws(store, ["seed", "answers.cut"]).num_rows == 10
    assert store.reported == set()


def test_compacting_again_changes_nothing_until_there_is_something_new(store: Store) -> None:
    store.commit_draws([make_row(prompt="p0")])
    assert compact(store, "draws", "c") == 0
    store.commit_draws([make_row(prompt="p1")])
    assert compact(store, "draws", "c") == 1
    (whole,) = files(store)
    content = whole.read_bytes()
    assert compact(store, "draws", "c") == 0
    assert whole.read_bytes() == content
    store.commit_draws([make_row(prompt="p2")])
    before = store.read("draws", "c")
    assert compact(store, "draws", "c") == 1
    assert files(store) != [whole]
    assert store.read("draws", "c").equals(before)


def test_finished_contexts_are_compacted_in_every_table_and_others_are_left(store: Store) -> None:
    for number in range(2):
        store.commit_draws([make_row(prompt=f"p{number}")])
        store.commit_grades([make_grade(f"p{number}")])
        store.commit_failures([make_failure(f"p{number}", "c"), make_failure(f"p{number}", "other")])
        store.commit_loops([LoopRow("c", f"p{number}", 0, 4, 0)])
    assert compact_finished(store, ["c", "nowhere"]) == 4
    assert [len(files(store, table)) for table in TABLES] == [1, 1, 1, 1]
    assert len(list(Path(store.root, "failures", "other").iterdir())) == 2


def test_part_that_cannot_be_read_whole_is_not_touched(store: Store) -> None:
    store.commit_draws([make_row(prompt="p0")])
    good = files(store)[0]
    store.commit_draws([make_row(prompt="p1")])
    torn = good.with_name("torn.parquet")
    torn.write_bytes(good.read_bytes()[:-20])
    assert compact(store, "draws", "c") == 1
    assert torn.exists()
    assert store.stored_draws("c") == {("c", "p0", 0), ("c", "p1", 0)}


def test_sweep_that_cannot_compact_says_so_and_is_complete_all_the_same(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        store.commit_draws([make_row(prompt=f"p{number}")])
    before = store.read("draws", "c")
    path = Path(store.root, "draws", "c", compacted_name(file.name for file in files(store)))
    path.mkdir()  # where the whole is to be put, nothing can be put
    tidy(store, ["c"])
    assert "the store is not compacted (StoreUnavailable" in capsys.readouterr().err
    path.rmdir()
    assert store.read("draws", "c").equals(before)


def test_two_compactors_that_saw_different_parts_make_no_row_double(store: Store) -> None:
    def commit(prompt: str) -> None:
        store.commit_draws([make_row(prompt=prompt)])

    commit("a")
    commit("b")
    commit("d")
    before, parts = store.read("draws", "c"), store.parts("draws", "c")
    for some in (parts[:2], parts[1:]):  # overlapping: neither stands for the other
        sources = distinct(some)
        rows = pa.concat_tables(sources.values()).cast(TABLES["draws"])
        name = f"draws/c/{compacted_name(sources)}"
        store.files.publish(name, encode(rows, {name: one.num_rows for name, one in sources.items()}))
        assert store.read("draws", "c").equals(before)
    for part in parts:
        store.files.remove(part.file.path)
        assert store.read("draws", "c").equals(before)
    assert compact(store, "draws", "c") == 1
    assert store.read("draws", "c").equals(before)


class Killed(BaseException):
    """Raised where a kill -9 would have struck."""


def mortal(store: Store, changes: int) -> Store:
    """The store as a process sees it that will be killed after so many changes to its files."""
    files = _MortalFiles(store.files.uri, store.files.root, store.files.local)
    files.left = changes
    return Store(files)


class _MortalFiles(Files):
    left = 0

    def publish(self, path, content):
        self._live()
        super().publish(path, content)

    def remove(self, path):
        self._live()
        super().remove(path)

    def _live(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


COMMIT = st.tuples(st.just("commit"), st.integers(0, 3))
COMPACT = st.tuples(st.just("compact"), st.just(0))
DIE = st.tuples(st.just("die"), st.integers(0, 5))
"""Compact, and be killed after so many changes."""


@settings(max_examples=60)
@given(st.lists(st.one_of(COMMIT, COMPACT, DIE), max_size=15))
def test_any_order_of_commits_compactions_and_kills_reads_as_if_nobody_had_compacted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    committed: dict[str, list[dict]] = {}
    moments = itertools.count()
    for action, number in steps:
        if action == "commit":
            rows = [make_row(prompt=f"p{number}", seed=seed, created_at=float(next(moments))) for seed in range(2)]
            name = store.commit_draws(rows).rsplit("/", 1)[-1]
            committed[name] = [(row.prompt_id, row.seed, row.created_at) for row in rows]
        elif action == "compact":
            compact(store, "draws", "c")
            assert len(store.parts("draws", "c")) <= 1
        else:
            with contextlib.suppress(Killed):
                compact(mortal(store, number), "draws", "c")
        table = Store.open(store.uri).read("draws", "c", ["prompt_id", "seed", "created_at"])
        seen = [tuple(row.values()) for row in table.to_pylist()]
        assert seen == [row for name in sorted(committed) for row in committed[name]]


def test_reader_beside_a_writer_and_two_compactors_never_sees_less_or_double(store: Store) -> None:
    written, done = [0], threading.Event()

    def write() -> None:
        for seed in range(60):
            store.commit_draws([make_row(seed=seed)])
            written[0] = seed + 1
        done.set()

    def keep_compacting() -> None:
        own = Store.open(store.uri)
        while not done.is_set():
            compact(own, "draws", "c")

    threads = [threading.Thread(target=one) for one in (write, keep_compacting, keep_compacting)]
    for thread in threads:
        thread.start()
    reader = Store.open(store.uri)
    while not done.is_set():
        least = written[0]
        seeds = reader.read("draws", "c", ["seed"])["seed"].to_pylist()
        assert len(seeds) == len(set(seeds))
        assert set(range(least)) <= set(seeds)
        assert load_draws(reader, ["seed"]).num_rows >= least
    for thread in threads:
        thread.join()
    assert sorted(reader.read("draws", "c", ["seed"])["seed"].to_pylist()) == list(range(60))
    assert reader.reported == set()
