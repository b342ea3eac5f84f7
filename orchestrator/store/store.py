"""The store: Parquet parts and patches under one folder, the only truth.

    <store>/patches/<patch id>/            manifest.json is written last: a folder without it does not count
    <store>/draws/<context id>/<part>.parquet
    <store>/grades/<context id>/<part>.parquet
    <store>/failures/<context id>/<part>.parquet
    <store>/loops/<context id>/<part>.parquet
    <store>/payloads/<id>.json             what an id was computed from, for `explain`
    <store>/drivers/<id>.json              which process drives which sweep now (orchestrator/store/lease.py)
    <store>/logs/<run>.events.jsonl.gz     a run's event log, for `replay`

Promise committed-is-forever: a part appears whole or not at all, is never rewritten, and has one writer. Readers report
torn, empty and foreign files instead of failing on them. Every method raises `StoreUnavailable` if the file system
refuses.
"""

import hashlib
import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.store.files import MAX_LISTINGS, Files, ListedFile
from orchestrator.store.parts import Part, distinct, encode, read_part
from orchestrator.store.tables import TABLES, column_names, to_table
from pruning.patch.manifest import MANIFEST
from workers.rows.tables import DrawRow, FailureRow, GradeRow, LoopRow
from workers.store import StoreError, StoreUnavailable, Trouble, trouble_of

__all__ = ["Store", "StoreError", "StoreUnavailable", "Trouble", "load_draws"]

PROBE = b"prunesweep"
READERS = 8
"""Files read concurrently: on object storage each read is a round trip."""


@dataclass
class Store:
    """One store. Construct it with `Store.open`; it pickles, and reopens its file system where it is unpickled."""

    files: Files
    reported: set[str] = field(default_factory=set, repr=False, compare=False)
    """Files that were ignored because they cannot be read as parts: one line each."""

    @classmethod
    def open(cls, uri: str) -> "Store":
        """A store at a local path, or at `s3://bucket/prefix` (see orchestrator/store/object_storage.py)."""
        return cls(Files.open(uri))

    @property
    def uri(self) -> str:
        return self.files.uri

    @property
    def root(self) -> str:
        return self.files.root

    @property
    def local(self) -> bool:
        return self.files.local

    def check_writable(self) -> None:
        """Check writability with a probe file. Raises `StoreUnavailable`."""
        name = f".probe-{uuid.uuid4().hex}"
        self.files.publish(name, PROBE)
        self.files.remove(name)

    # --- patches ------------------------------------------------------------------------------------------------------

    def patch_ids(self) -> frozenset[str]:
        """The ids of complete patches."""
        return frozenset(file.folder for file in self.files.listing("patches") if file.name == MANIFEST)

    def publish_patch(self, folder: Path, patch_id: str) -> None:
        """Copy a finished patch folder into the store, its manifest last. A stored patch is kept as it is."""
        if patch_id in self.patch_ids():
            return
        files = sorted(folder.iterdir(), key=lambda file: file.name == MANIFEST)
        for file in files:
            self.files.publish(f"patches/{patch_id}/{file.name}", file.read_bytes())

    def fetch_patch(self, patch_id: str, cache: Path) -> Path:
        """A local folder with the patch: the store's own if it is local, else a copy under `cache`.

        `cache` must be the caller's own: it keeps one patch, and fetching another replaces it.
        """
        if self.local:
            return Path(self.root, "patches", patch_id)
        try:
            return self._download(patch_id, cache)
        except OSError as error:
            trouble = trouble_of(error)
            raise StoreUnavailable(
                f"cache {cache}: patch {patch_id} cannot be copied here ({trouble}): {error}; make room there, or "
                "set TMPDIR to a folder that can be written",
                trouble,
            ) from error

    def _download(self, patch_id: str, cache: Path) -> Path:
        target = cache / patch_id
        if (target / MANIFEST).exists():
            return target
        for previous in cache.glob(f"*/{MANIFEST}"):
            shutil.rmtree(previous.parent)
        scratch = cache / f".{patch_id}-{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        try:
            for file in self.files.listing(f"patches/{patch_id}"):
                (scratch / file.name).write_bytes(self.files.fetch(file.path))
            return scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    # --- the models' own traces, to calibrate on ----------------------------------------------------------------------

    def traces_digest(self, name: str) -> str | None:
        """The sha256 of the stored traces of that name, or None."""
        content = self.files.read(f"traces/{name}.jsonl")
        return None if content is None else hashlib.sha256(content).hexdigest()

    def publish_traces(self, name: str, content: bytes) -> None:
        """Keep traces, a calibration file, under a name. Those that are stored are kept as they are."""
        if self.traces_digest(name) is None:
            self.files.publish(f"traces/{name}.jsonl", content)

    def fetch_traces(self, name: str, cache: Path) -> Path:
        """A local file with the traces of that name: the store's own if it is local, else a copy under `cache`.

        Raises `StoreUnavailable`.
        """
        path = f"traces/{name}.jsonl"
        if self.local:
            return Path(self.root, path)
        content = self.files.fetch(path)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            target = cache / f"{name}.jsonl"
            scratch = cache / f".{name}-{uuid.uuid4().hex}"
            scratch.write_bytes(content)
            return scratch.replace(target)
        except OSError as error:
            trouble = trouble_of(error)
            cause = f"cache {cache}: calibration traces cannot be copied here ({trouble}): {error}; make room there"
            raise StoreUnavailable(cause, trouble) from error

    # --- tables -------------------------------------------------------------------------------------------------------

    def commit_draws(self, rows: Sequence[DrawRow]) -> str:
        """Store draws of one context as one part; returns the part's path."""
        return self._commit("draws", rows[0].context_id, rows)

    def commit_grades(self, rows: Sequence[GradeRow]) -> str:
        """Store grades of one context as one part; returns the part's path."""
        return self._commit("grades", rows[0].context_id, rows)

    def commit_loops(self, rows: Sequence[LoopRow]) -> str:
        """Store loops of draws of one context as one part; returns the part's path."""
        return self._commit("loops", rows[0].context_id, rows)

    def commit_failures(self, rows: Sequence[FailureRow]) -> None:
        """Store records of draws that were given up, one part per context."""
        by_context: dict[str, list[FailureRow]] = {}
        for row in rows:
            by_context.setdefault(row.context_id, []).append(row)
        for context_id, group in by_context.items():
            self._commit("failures", context_id, group)

    def _commit(self, table: str, context_id: str, rows: Sequence[Any]) -> str:
        part = f"{table}/{context_id}/{uuid.uuid4().hex}.parquet"
        self.files.publish(part, encode(to_table(rows, TABLES[table])))
        return part

    def read(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> pa.Table:
        """All rows of one context, or the given columns of them (`answers.cut` reads a nested one)."""
        names = column_names(TABLES[table], columns)
        return _rows(self.parts(table, context_id, names), table, names)

    def read_all(self, table: str, columns: Iterable[str] | None = None) -> pa.Table:
        """All rows of every context, context by context. One listing; files are read concurrently."""
        names = column_names(TABLES[table], columns)
        contexts: dict[str, list[ListedFile]] = defaultdict(list)
        for file in self._files_of(table):
            contexts[file.folder].append(file)

        def read(context_id: str) -> pa.Table:
            try:
                parts = [self._read_file(table, file, names) for file in contexts[context_id]]
            except FileNotFoundError:  # compacted since the listing
                parts = list(self.parts(table, context_id, names))
            return _rows(parts, table, names)

        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(read, contexts))
        return pa.concat_tables(tables or [_rows([], table, names)])

    def parts(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> list[Part]:
        """The given columns of every readable file of one context."""
        names = column_names(TABLES[table], columns)
        for _ in range(MAX_LISTINGS):
            files = self._files_of(table, context_id)
            try:
                with ThreadPoolExecutor(1 if self.local else READERS) as pool:
                    read = pool.map(lambda file: self._read_file(table, file, names), files)
                    return [part for part in read if part is not None]
            except FileNotFoundError:  # replaced by compaction: the next listing shows the compacted part
                continue
        raise StoreError(f"store {self.uri}: {table}/{context_id} changes faster than it can be read; try again later")

    def _read_file(self, table: str, file: ListedFile, columns: Sequence[str]) -> Part | None:
        return read_part(self.files, file, TABLES[table], columns, self.reported.add)

    def _files_of(self, table: str, context_id: str = "") -> list[ListedFile]:
        folder = f"{table}/{context_id}" if context_id else table
        return [file for file in self.files.listing(folder) if file.path.count("/") == 2]

    def contexts(self, table: str = "draws") -> frozenset[str]:
        """Contexts that have rows in `table`."""
        return frozenset(file.folder for file in self._files_of(table))

    def stored_draws(self, context_id: str) -> frozenset[tuple[str, str, int]]:
        """(context id, prompt id, seed) of every draw of one context that has a row."""
        table = self.read("draws", context_id, ["prompt_id", "seed"])
        pairs = zip(table["prompt_id"].to_pylist(), table["seed"].to_pylist(), strict=True)
        return frozenset((context_id, prompt_id, seed) for prompt_id, seed in pairs)

    # --- small documents ----------------------------------------------------------------------------------------------

    def put_payload(self, name: str, payload: Mapping[str, Any]) -> None:
        """Store what an id was computed from, unless it is stored: the id determines the content."""
        if not self.files.exists(f"payloads/{name}.json"):
            self.put_document(f"payloads/{name}.json", payload)

    def payload(self, name: str) -> dict[str, Any] | None:
        """What an id was computed from, or None."""
        return self.get_document(f"payloads/{name}.json")

    def get_document(self, path: str) -> dict[str, Any] | None:
        """A JSON document, or None if it is missing or damaged."""
        try:
            value = json.loads(self.files.read(path) or b"")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def put_document(self, path: str, document: Mapping[str, Any]) -> None:
        """Write a JSON document atomically, replacing the one before."""
        self.files.publish(path, _json(document))

    def create_document(self, path: str, document: Mapping[str, Any]) -> bool:
        """Write a JSON document unless it exists; returns whether it was written, as far as `Files.create` knows."""
        return self.files.create(path, _json(document))


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _rows(parts: Iterable[Part | None], table: str, columns: Sequence[str]) -> pa.Table:
    """The rows of one context's parts, each source once. None stands for a part that was ignored."""
    tables = list(distinct([part for part in parts if part is not None]).values())
    if tables:
        return pa.concat_tables(tables)
    # Not `schema.empty_table()`, which imports pandas: half a second.
    return pa.Table.from_batches([], TABLES[table]).select(list(dict.fromkeys(name.split(".")[0] for name in columns)))


def load_draws(store: str | Store, columns: Iterable[str] | None = None) -> pa.Table:
    """Every draw of a store as one Arrow table; see docs/store.md for DuckDB and pandas recipes."""
    opened = store if isinstance(store, Store) else Store.open(store)
    return opened.read_all("draws", columns)
