"""A part: a Parquet file of rows of one context. Written once; read whole or by columns.

A part that a worker committed is one **source**. Compaction writes parts of several sources, one after the other, and
lists them in the file's metadata. A reader takes every source once, from whichever file it meets first, in the order of
the sources' names; so it sees the same rows before, during and after a compaction.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.store.files import Files, ListedFile
from orchestrator.store.tables import is_readable, leaf, stored_columns, upgrade

SOURCES = b"prunesweep.sources"
WHOLE = 1 << 20
"""A file up to this size in bytes is fetched from object storage in one request, whichever columns are read."""


@dataclass(frozen=True)
class Part:
    """What was read from one file."""

    file: ListedFile
    sources: Mapping[str, int]
    """The file's sources in order, each with its number of rows."""
    rows: pa.Table

    def by_source(self) -> dict[str, pa.Table]:
        """The rows of each source."""
        slices, start = {}, 0
        for name, count in self.sources.items():
            slices[name] = self.rows.slice(start, count)
            start += count
        return slices


def encode(rows: pa.Table, sources: Mapping[str, int] | None = None) -> pa.Buffer:
    """A part's bytes. `sources` is given for a compacted part: its sources in order, with their numbers of rows."""
    if sources is not None:
        rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), SOURCES: json.dumps(sources).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def read_part(
    files: Files, found: ListedFile, schema: pa.Schema, columns: Sequence[str], report: Callable[[str], None]
) -> Part | None:
    """The given columns of one file; None, and a line to `report`, if the file is torn, empty or foreign.

    Raises FileNotFoundError if the file was removed since it was listed, and StoreUnavailable if the file system is at
    fault: its draws are stored, and would be made again if the file were ignored.
    """
    if files.local or found.size > WHOLE:
        try:
            with files.open_file(found) as source:
                return _decode(source, found, schema, columns)
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError):  # the file or its disk is at fault: reading all its bytes tells which
            pass
    content = files.fetch(found.path)
    try:
        return _decode(pa.BufferReader(content), found, schema, columns)
    except (pa.ArrowInvalid, OSError) as error:
        report(f"{files.root}/{found.path}: {str(error).splitlines()[0]}; ignored")
        return None


def _decode(source: pa.NativeFile, found: ListedFile, schema: pa.Schema, columns: Sequence[str]) -> Part:
    with pq.ParquetFile(source, pre_buffer=True) as file:
        shape = file.schema_arrow
        if not is_readable(shape, schema):
            raise pa.ArrowInvalid("not a table of this version")
        stored = [leaf(shape, name) for name in stored_columns(shape, columns)]
        rows = upgrade(file.read(columns=stored).replace_schema_metadata(None), columns)
        listed = (shape.metadata or {}).get(SOURCES)
        sources = json.loads(listed) if listed else {found.name: rows.num_rows}
        if sum(sources.values()) != rows.num_rows:
            raise pa.ArrowInvalid("its sources and its rows do not agree")
        return Part(found, sources, rows)


def distinct(parts: Sequence[Part]) -> dict[str, pa.Table]:
    """The rows of every source, each once, by the source's name."""
    slices: dict[str, pa.Table] = {}
    for part in parts:
        if not slices.keys() >= part.sources.keys():
            slices = part.by_source() | slices
    return dict(sorted(slices.items()))
