"""Reading the metadata of a million draws, from small parts and from compacted ones.

    python -m benchmarks.store [--draws 1000000] [--contexts 500] [--parts 10] [--trace 100] [--folder DIR]

The traces are short (100 tokens), because 1 M of 2,000 tokens would be 8 GB; that is what reading by columns leaves on
the disk either way, and the bytes read are printed. The rows are made by the column, as parts that compaction sees.
"""

import argparse
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from orchestrator.store.compaction import compact_finished
from orchestrator.store.parts import encode
from orchestrator.store.store import Store, load_draws
from orchestrator.store.tables import ANSWER, DRAWS

METADATA = ["prompt_id", "seed", "start", "trace_tokens", "ended", "limit", "answers.cut", "created_at"]


def part(context: str, first: int, rows: int, trace: int) -> pa.Table:
    """`rows` draws of one context, with two answers each."""
    rng = np.random.default_rng(first)

    def lists(width: int, count: int = rows) -> pa.Array:
        offsets = np.arange(0, count * width + 1, width, dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, rng.integers(0, 150_000, count * width, dtype=np.int32))

    def same(value: object, kind: pa.DataType, count: int = rows) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), count)

    answers = {
        "cut": pa.array(np.tile(np.array([trace // 2, trace], dtype=np.int32), rows)),
        "token_ids": lists(16, 2 * rows),
        "text": pa.array([f"The answer is \\boxed{{{number}}}." for number in range(2 * rows)]),
        "thinking_tokens": same(trace, pa.int32(), 2 * rows),
        "finish_reason": same("stop", pa.string(), 2 * rows),
    }
    flags = {name: same(False, pa.bool_(), 2 * rows) for name in ("forced", "cap_hit", "reopened_thinking")}
    fields = [(answers | flags)[field.name] for field in ANSWER]
    columns = {
        "context_id": same(context, pa.string()),
        "answer_context_id": same("answers", pa.string()),
        "prompt_id": pa.array([f"{(first + number) // 8:020x}" for number in range(rows)]),
        "seed": pa.array(np.arange(first, first + rows) % 8),
        "benchmark": same("math500", pa.string()),
        "problem_id": pa.array([f"math-{(first + number) // 8}" for number in range(rows)]),
        "prompt_ids": lists(50),
        "start": same(0, pa.int32()),
        "limit": same(trace, pa.int32()),
        "trace_ids": lists(trace),
        "trace_tokens": same(trace, pa.int32()),
        "trace_text": pa.array([f"{number} " * trace for number in range(rows)]),
        "ended": same(True, pa.bool_()),
        "derived_seed": same(False, pa.bool_()),
        "waits": same(0, pa.int32()),
        "answers": pa.ListArray.from_arrays(
            np.arange(0, 2 * rows + 1, 2, dtype=np.int32), pa.StructArray.from_arrays(fields, fields=list(ANSWER))
        ),
        "weights_digest": same("0" * 64, pa.string()),
        "engine": same('{"version":"0.32.0"}', pa.string()),
        "worker": same("engine-1", pa.string()),
        "created_at": pa.array(1.7e9 + np.arange(first, first + rows)),
    }
    return pa.table([columns[name] for name in DRAWS.names], schema=DRAWS)


def fill(store: Store, draws: int, contexts: int, parts: int, trace: int) -> Iterator[str]:
    """Write the store without flushing each part to the disk, and give the contexts."""
    rows = draws // contexts // parts
    template = [part("c", number * rows, rows, trace) for number in range(parts)]
    position = DRAWS.get_field_index("context_id")
    for number in range(contexts):
        context = f"{number:020x}"
        folder = Path(store.root, "draws", context)
        folder.mkdir(parents=True)
        names = pa.repeat(pa.scalar(context), rows)
        for one in template:
            content = encode(one.set_column(position, DRAWS.field(position), names))
            (folder / f"{uuid.uuid4().hex}.parquet").write_bytes(content)
        yield context


def bytes_read() -> int:
    """What this process has read from files so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def timed(name: str, store: Store) -> pa.Table:
    """Read all metadata twice: the first read is of a disk cache as it is, the second of a warm one."""
    before = bytes_read()
    for turn in ("first", "again"):
        began = time.perf_counter()
        table = load_draws(Store.open(store.uri), METADATA)
        seconds = time.perf_counter() - began
        read, before = bytes_read() - before, bytes_read()
        print(f"{name}, {turn}: {table.num_rows:,} draws' metadata in {seconds:.1f} s, {read / 1e6:,.0f} MB read")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--contexts", type=int, default=500)
    parser.add_argument("--parts", type=int, default=10, help="per context, before compaction")
    parser.add_argument("--trace", type=int, default=100, help="tokens per trace")
    parser.add_argument("--folder", help="where to write; a temporary folder if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = Store.open(str(Path(folder, "store")))
        contexts = list(fill(store, options.draws, options.contexts, options.parts, options.trace))
        files = store.files.listing("draws")
        print(f"{len(files):,} parts, {sum(file.size for file in files) / 1e6:,.0f} MB")
        small = timed("small parts", store)
        began = time.perf_counter()
        fewer = compact_finished(store, contexts)
        print(f"compaction: {fewer:,} files fewer in {time.perf_counter() - began:.1f} s")
        whole = timed("compacted", store)
        assert whole.equals(small)


if __name__ == "__main__":
    main()
