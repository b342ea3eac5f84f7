"""The store: committed Parquet parts and patches under one folder, the only truth.

    <store>/patches/<patch id>/            manifest.json is written last: a folder without it is not there
    <store>/draws/<context id>/<part>.parquet
    <store>/grades/<context id>/<part>.parquet
    <store>/failures/<context id>/<part>.parquet
    <store>/payloads/<id>.json             what an id was computed from, for `explain`
    <store>/drivers/<id>.json              which process drives which sweep now (orchestrator/store/lease.py)

Promise committed-is-forever: a part appears whole or not at all, is never rewritten, and has one writer. Readers report
files that are torn, empty or foreign instead of failing on them. Every method raises `StoreUnavailable` if the file
system refuses.
"""

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

from orchestrator.store.files import PATIENCE, Files, Found
from orchestrator.store.parts import Part, distinct, encode, read_part
from orchestrator.store.tables import TABLES, column_names, to_table
from pruning.patch.manifest import MANIFEST
from workers.store import StoreError, StoreUnavailable, Trouble, trouble_of
from workers.tables import DrawKey, DrawRow, FailureRow, GradeRow

__all__ = ["MANIFEST", "Store", "StoreError", "StoreUnavailable", "Trouble", "load_draws"]

PROBE = b"prunesweep"
READERS = 8
"""Files read at a time: on object storage each is a wait."""


@dataclass
class Store:
    """One store. Construct it with `Store.open`; it pickles, and opens its file system anew where it is unpickled."""

    files: Files
    reported: set[str] = field(default_factory=set, repr=False, compare=False)
    """What was found that does not belong here, a line each."""

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
        """Prove by writing. Raises `StoreUnavailable` before anything has been spent."""
        name = f".probe-{uuid.uuid4().hex}"
        self.files.publish(name, PROBE)
        self.files.remove(name)

    # --- patches ------------------------------------------------------------------------------------------------------

    def patch_ids(self) -> frozenset[str]:
        """Patches that are complete."""
        return frozenset(file.folder for file in self.files.listing("patches") if file.name == MANIFEST)

    def publish_patch(self, folder: Path, patch_id: str) -> None:
        """Copy a finished patch folder into the store, its manifest last. A patch that is there already is kept."""
        if patch_id in self.patch_ids():
            return
        files = sorted(folder.iterdir(), key=lambda file: file.name == MANIFEST)
        for file in files:
            self.files.publish(f"patches/{patch_id}/{file.name}", file.read_bytes())

    def fetch_patch(self, patch_id: str, cache: Path) -> Path:
        """A local folder that holds the patch: the store's own where it is local, else a copy under `cache`.

        `cache` is the caller's alone: a patch that is fetched into it takes the place of the one before.
        """
        if self.local:
            return Path(self.root, "patches", patch_id)
        try:
            return self._copied(patch_id, cache)
        except OSError as error:
            trouble = trouble_of(error)
            raise StoreUnavailable(
                f"cache {cache}: patch {patch_id} cannot be kept ({trouble}): {error}; make room there and let it be "
                "written, or set TMPDIR to a folder where it can",
                trouble,
            ) from error

    def _copied(self, patch_id: str, cache: Path) -> Path:
        target = cache / patch_id
        if (target / MANIFEST).exists():
            return target
        for held in cache.glob(f"*/{MANIFEST}"):
            shutil.rmtree(held.parent)
        scratch = cache / f".{patch_id}-{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        try:
            for file in self.files.listing(f"patches/{patch_id}"):
                (scratch / file.name).write_bytes(self.files.fetch(file.path))
            return scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    # --- tables -------------------------------------------------------------------------------------------------------

    def commit_draws(self, rows: Sequence[DrawRow]) -> str:
        """Make draws permanent. Returns the part's name; when it returns, the draws are in the store."""
        return self._commit("draws", rows[0].context_id, rows)

    def commit_grades(self, rows: Sequence[GradeRow]) -> str:
        """Make grades permanent."""
        return self._commit("grades", rows[0].context_id, rows)

    def commit_failures(self, rows: Sequence[FailureRow]) -> None:
        """Record draws that were given up."""
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
        """All committed rows of one context, or the given columns of them (`answers.cut` reads a nested one)."""
        wanted = column_names(TABLES[table], columns)
        return _rows(self.parts(table, context_id, wanted), table, wanted)

    def read_all(self, table: str, columns: Iterable[str] | None = None) -> pa.Table:
        """All committed rows of every context, context by context. One listing, many files at a time."""
        wanted = column_names(TABLES[table], columns)
        contexts: dict[str, list[Found]] = defaultdict(list)
        for file in self._files_of(table):
            contexts[file.folder].append(file)

        def read(context_id: str) -> pa.Table:
            try:
                parts = [self._read_file(table, file, wanted) for file in contexts[context_id]]
            except FileNotFoundError:  # compacted since the listing
                parts = list(self.parts(table, context_id, wanted))
            return _rows(parts, table, wanted)

        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(read, contexts))
        return pa.concat_tables(tables or [_rows([], table, wanted)])

    def parts(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> list[Part]:
        """What the files of one context hold: of every file that can be read, the given columns."""
        wanted = column_names(TABLES[table], columns)
        for _ in range(PATIENCE):
            files = self._files_of(table, context_id)
            try:
                with ThreadPoolExecutor(1 if self.local else READERS) as pool:
                    read = pool.map(lambda file: self._read_file(table, file, wanted), files)
                    return [part for part in read if part is not None]
            except FileNotFoundError:  # compaction has put another in its place: the next listing shows it
                continue
        raise StoreError(f"store {self.uri}: {table}/{context_id} changes faster than it can be read; try again later")

    def _read_file(self, table: str, file: Found, columns: Sequence[str]) -> Part | None:
        return read_part(self.files, file, TABLES[table], columns, self.reported.add)

    def _files_of(self, table: str, context_id: str = "") -> list[Found]:
        folder = f"{table}/{context_id}" if context_id else table
        return [file for file in self.files.listing(folder) if file.path.count("/") == 2]

    def contexts(self, table: str = "draws") -> frozenset[str]:
        """Contexts that have rows in `table`."""
        return frozenset(file.folder for file in self._files_of(table))

    def held_keys(self, context_id: str) -> frozenset[DrawKey]:
        """The draws of one context that have a committed row."""
        table = self.read("draws", context_id, ["prompt_id", "seed"])
        pairs = zip(table["prompt_id"].to_pylist(), table["seed"].to_pylist(), strict=True)
        return frozenset((context_id, prompt_id, seed) for prompt_id, seed in pairs)

    # --- small documents ----------------------------------------------------------------------------------------------

    def put_payload(self, name: str, payload: Mapping[str, Any]) -> None:
        """Keep what an id was computed from. The id fixes the content, so a second write changes nothing."""
        if not self.files.exists(f"payloads/{name}.json"):
            self.put_document(f"payloads/{name}.json", payload)

    def payload(self, name: str) -> dict[str, Any] | None:
        """What an id was computed from, or None."""
        return self.get_document(f"payloads/{name}.json")

    def get_document(self, path: str) -> dict[str, Any] | None:
        """A JSON document, or None if it is absent or damaged."""
        try:
            value = json.loads(self.files.read(path) or b"")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def put_document(self, path: str, document: Mapping[str, Any]) -> None:
        """Write a JSON document, whole, in place of the one before."""
        self.files.publish(path, _json(document))

    def create_document(self, path: str, document: Mapping[str, Any]) -> bool:
        """Write a JSON document unless there is one; see `Files.create` for what the answer is worth."""
        return self.files.create(path, _json(document))


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _rows(parts: Iterable[Part | None], table: str, columns: Sequence[str]) -> pa.Table:
    """The rows of one context's parts, each source once."""
    schema = TABLES[table]
    empty = schema.empty_table().select(list(dict.fromkeys(name.split(".")[0] for name in columns)))
    tables = list(distinct([part for part in parts if part is not None]).values())
    return pa.concat_tables(tables) if tables else empty


def load_draws(store: str | Store, columns: Iterable[str] | None = None) -> pa.Table:
    """Every committed draw of a store as one Arrow table; see docs/store.md for DuckDB and pandas recipes."""
    opened = store if isinstance(store, Store) else Store.open(store)
    return opened.read_all("draws", columns)
