"""The store: committed Parquet parts and patches under one folder, the only truth.

    <store>/patches/<patch id>/            manifest.json is written last: a folder without it is not there
    <store>/draws/<context id>/<part>.parquet
    <store>/grades/<context id>/<part>.parquet
    <store>/failures/<context id>/<part>.parquet
    <store>/payloads/<id>.json             what an id was computed from, for `explain`

Promise committed-is-forever: a part is written whole under a temporary name, flushed, and renamed; a part is never
rewritten, and has one writer. Readers ignore temporary names, and report files that are torn, empty or foreign instead
of failing on them. No file locks: they do nothing on many shared file systems. On object storage, where an upload
appears whole or not at all, the part is uploaded under its own name.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from orchestrator.schemas import TABLES, column_names, is_current, to_table
from workers.messages import DrawKey, DrawRow, FailureRow, GradeRow

MANIFEST = "manifest.json"
Warn = Callable[[str], None]


class StoreError(Exception):
    """The store cannot be written or read; the message names the place, the cause and the remedy."""


@dataclass
class Store:
    """One store. Construct it with `Store.open`; it pickles, and opens its file system anew where it is unpickled."""

    uri: str
    root: str
    local: bool
    _filesystem: Any = field(default=None, repr=False, compare=False)
    reported: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, uri: str) -> "Store":
        """A store at a local path, or at `s3://bucket/prefix` and whatever else pyarrow understands."""
        if "://" not in uri:
            return cls(uri, str(Path(uri).absolute()), local=True)
        try:
            _, root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"store {uri}: {error}; use a local path or s3://bucket/prefix") from error
        return cls(uri, root, local=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_filesystem": None}

    @property
    def filesystem(self) -> Any:
        if self._filesystem is None:
            self._filesystem = fs.LocalFileSystem() if self.local else fs.FileSystem.from_uri(self.uri)[0]
        return self._filesystem

    def check_writable(self) -> None:
        """Prove by writing. Raises `StoreError` before anything has been spent."""
        name = f".probe-{uuid.uuid4().hex}"
        try:
            self._publish(name, b"prunesweep")
            self.filesystem.delete_file(f"{self.root}/{name}")
        except OSError as error:
            raise StoreError(f"store {self.uri} cannot be written: {error}; give a folder that can") from error

    # --- patches ------------------------------------------------------------------------------------------------------

    def patch_ids(self) -> frozenset[str]:
        """Patches that are complete."""
        found = self._list("patches", recursive=True)
        return frozenset(path.split("/")[-2] for path in found if path.endswith(f"/{MANIFEST}"))

    def publish_patch(self, folder: Path, patch_id: str) -> None:
        """Copy a finished patch folder into the store, its manifest last. A patch that is there already is kept."""
        if patch_id in self.patch_ids():
            return
        files = sorted(folder.iterdir(), key=lambda file: file.name == MANIFEST)
        for file in files:
            self._publish(f"patches/{patch_id}/{file.name}", file.read_bytes())

    def fetch_patch(self, patch_id: str, cache: Path) -> Path:
        """A local folder that holds the patch: the store's own where it is local, else a copy under `cache`."""
        if self.local:
            return Path(self.root, "patches", patch_id)
        target = cache / patch_id
        if not (target / MANIFEST).exists():
            scratch = cache / f".{patch_id}-{uuid.uuid4().hex}"
            scratch.mkdir(parents=True)
            for path in self._list(f"patches/{patch_id}"):
                with self.filesystem.open_input_stream(path) as source:
                    (scratch / path.rsplit("/", 1)[-1]).write_bytes(source.read())
            try:
                scratch.rename(target)
            except OSError:  # another process of this machine was faster; its copy is as good
                shutil.rmtree(scratch)
        return target

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
        sink = pa.BufferOutputStream()
        pq.write_table(to_table(rows, TABLES[table]), sink, compression="zstd")
        part = f"{table}/{context_id}/{uuid.uuid4().hex}.parquet"
        self._publish(part, sink.getvalue())
        return part

    def read(self, table: str, context_id: str, columns: Iterable[str] | None = None) -> pa.Table:
        """All committed rows of one context, or the given columns of them (`answers.cut` reads a nested one)."""
        schema = TABLES[table]
        wanted = column_names(schema, columns)
        parts = [self._read_part(path, schema, wanted) for path in self._list(f"{table}/{context_id}")]
        good = [part for part in parts if part is not None]
        if not good:
            empty = schema.empty_table()
            return empty.select(list(dict.fromkeys(name.split(".")[0] for name in wanted)))
        return pa.concat_tables(good)

    def _read_part(self, path: str, schema: pa.Schema, columns: list[str]) -> pa.Table | None:
        try:
            with self.filesystem.open_input_file(path) as source:
                content = source.read_buffer()
        except OSError as error:  # not the part's fault: taking it for absent would make its draws again
            raise StoreError(f"store {self.uri}: {path} cannot be read: {error}; try again when it can") from error
        try:
            with pq.ParquetFile(pa.BufferReader(content)) as file:
                if not is_current(file.schema_arrow, schema):
                    self.reported.add(f"{path}: not a table of this version; ignored")
                    return None
                return file.read(columns=[_leaf(schema, name) for name in columns]).replace_schema_metadata(None)
        except (pa.ArrowInvalid, OSError) as error:
            self.reported.add(f"{path}: {str(error).splitlines()[0]}; ignored")
            return None

    def contexts(self, table: str = "draws") -> frozenset[str]:
        """Contexts that have rows in `table`."""
        return frozenset(path.split("/")[-2] for path in self._list(table, recursive=True))

    def parts(self, table: str, context_id: str) -> int:
        """How many files hold the rows of one context."""
        return len(self._list(f"{table}/{context_id}"))

    def held_keys(self, context_id: str) -> frozenset[DrawKey]:
        """The draws of one context that have a committed row."""
        table = self.read("draws", context_id, ["prompt_id", "seed"])
        pairs = zip(table["prompt_id"].to_pylist(), table["seed"].to_pylist(), strict=True)
        return frozenset((context_id, prompt_id, seed) for prompt_id, seed in pairs)

    # --- small documents ----------------------------------------------------------------------------------------------

    def put_payload(self, name: str, payload: Mapping[str, Any]) -> None:
        """Keep what an id was computed from. The id fixes the content, so a second write changes nothing."""
        if not self._exists(f"payloads/{name}.json"):
            self._publish(f"payloads/{name}.json", json.dumps(payload, indent=1, sort_keys=True).encode())

    def payload(self, name: str) -> dict[str, Any] | None:
        """What an id was computed from, or None."""
        return self.get_document(f"payloads/{name}.json")

    def get_document(self, path: str) -> dict[str, Any] | None:
        """A JSON document, or None if it is absent or damaged."""
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{path}") as source:
                value = json.loads(source.read())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    # --- files --------------------------------------------------------------------------------------------------------

    def _publish(self, name: str, content: bytes | pa.Buffer) -> None:
        target = f"{self.root}/{name}"
        if not self.local:
            with self.filesystem.open_output_stream(target) as sink:
                sink.write(content)
            return
        folder = Path(target).parent
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(target)
        finally:
            scratch.unlink(missing_ok=True)

    def _list(self, folder: str, recursive: bool = False) -> list[str]:
        selector = fs.FileSelector(f"{self.root}/{folder}", recursive=recursive, allow_not_found=True)
        paths = (info.path for info in self.filesystem.get_file_info(selector) if info.is_file)
        return sorted(path for path in paths if not path.rsplit("/", 1)[-1].startswith("."))

    def _exists(self, name: str) -> bool:
        return bool(self.filesystem.get_file_info(f"{self.root}/{name}").type != fs.FileType.NotFound)


def _leaf(schema: pa.Schema, column: str) -> str:
    """`answers.cut` as Parquet spells it: the elements of a list are two levels further down."""
    head, _, field_name = column.partition(".")
    return f"{head}.list.element.{field_name}" if field_name and pa.types.is_list(schema.field(head).type) else column


def load_draws(store: str | Store, columns: Iterable[str] | None = None) -> pa.Table:
    """Every committed draw of a store as one Arrow table; see docs/store.md for DuckDB and pandas recipes."""
    opened = store if isinstance(store, Store) else Store.open(store)
    names = list(columns) if columns is not None else None
    tables = list(_each_context(opened, names))
    return pa.concat_tables(tables) if tables else TABLES["draws"].empty_table()


def _each_context(store: Store, columns: list[str] | None) -> Iterator[pa.Table]:
    for context_id in sorted(store.contexts("draws")):
        yield store.read("draws", context_id, columns)
