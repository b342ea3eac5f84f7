"""How long the views of a paper-sized store take: `status` and `report`, each as the command itself.

    python -m benchmarks.views [--variants 30] [--trace 2000] [--keep DIR] [--old]

30 variants x 5 token limits x 4 benchmarks (500, 30, 40 and 198 questions) x 3 seeds: 69,120 draws, of which every
eighth ends in a loop. The rows are made by the column, and every variant has the same traces, with verdicts of its own.
`--old` writes the rows as version 2 did, so the first view looks for the loops, and keeps them.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from eval.grading import grader_id
from eval.loops import LoopFinder
from eval.prompts import ChatTokenizer
from orchestrator.grid.parse import read_grid
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.resolved_grid import ResolvedGrid, ResolvedVariant
from orchestrator.store.tables import ANSWER, DRAWS, DRAWS_2, GRADES

ROOT = Path(__file__).parent.parent
TINY = ROOT / "examples" / "tiny"
LIMITS = [512, 1024, 2048, 4096, 8192]
SIZES = {"math": 500, "aime": 30, "amc": 40, "gpqa": 198}
ANSWER_TOKENS = 200
PARTS = 10


def write_grid(folder: Path, variants: int) -> Path:
    """The grid, its benchmarks, and a copy of the tiny model with a context that the limits fit into."""
    shutil.copytree(TINY / "model", folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40960}))
    number = 0
    for name, size in SIZES.items():
        lines = [json.dumps({"id": f"{name}-{n}", "problem": f"{number + n}+1?", "answer": "4"}) for n in range(size)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        number += size
    grid = {
        "name": "views", "store": str(folder / "store"), "models": [str(folder / "model")],
        "variants": [
            {"method": "dense"},
            {"method": "magnitude", "sparsity": [round(0.01 * n, 6) for n in range(1, variants)]},
        ],
        "token_limits": LIMITS,
        "benchmarks": [str(folder / f"{name}.jsonl") for name in SIZES],
        "sampling": {"temperature": 1.0, "seeds": [7, 11, 42]},
        "budget": {"mode": "native-strict", "answer_tokens": 512},
    }  # fmt: skip
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(grid))
    return file


def lists(values: NDArray[np.int32], lengths: NDArray[np.int32]) -> pa.Array:
    return pa.ListArray.from_arrays(np.append(np.int32(0), np.cumsum(lengths, dtype=np.int32)), values)


def draws(variant: ResolvedVariant, seeds: tuple[int, ...], mean: int) -> pa.Table:
    """The draws of one variant: traces of `mean` tokens on average, and an answer at every cut."""
    rng = np.random.default_rng(0)
    keys = [(question, seed) for question in variant.questions for seed in seeds]
    count = len(keys)
    lengths = np.minimum(rng.exponential(mean, count) + 1, LIMITS[-1]).astype(np.int32)
    looping = rng.random(count) < 1 / 8
    lengths[looping] = LIMITS[-1]
    traces = [rng.integers(0, 95, length, dtype=np.int32) for length in lengths]
    for trace in (trace for trace, loops in zip(traces, looping, strict=True) if loops):
        trace[1000:] = np.resize(trace[1000:1120], LIMITS[-1] - 1000)
    find = LoopFinder(_text_of(variant)).find
    cuts = [sorted({min(limit, int(length)) for limit in LIMITS}) for length in lengths]
    of_answers = np.array([cut for several in cuts for cut in several], dtype=np.int32)
    whole = np.repeat(lengths, [len(several) for several in cuts])
    answers = len(of_answers)
    forced = pa.array((of_answers < whole) | (of_answers == LIMITS[-1]))
    fields = {
        "cut": pa.array(of_answers),
        "forced": forced,
        "thinking_tokens": pa.array(of_answers),
        "answer_tokens": pa.repeat(pa.scalar(ANSWER_TOKENS, pa.int32()), answers),
        "token_ids": lists(rng.integers(0, 95, answers * ANSWER_TOKENS, dtype=np.int32),
                           np.full(answers, ANSWER_TOKENS, dtype=np.int32)),
        "text": pa.array([f"So it is \\boxed{{{number % 9}}}." for number in range(answers)]),
        "cap_hit": pa.repeat(pa.scalar(False), answers),
        "finish_reason": pa.repeat(pa.scalar("stop"), answers),
        "reopened_thinking": pa.repeat(pa.scalar(False), answers),
    }  # fmt: skip
    structs = pa.StructArray.from_arrays([fields[field.name] for field in ANSWER], fields=list(ANSWER))
    offsets = np.append(0, np.cumsum([len(several) for several in cuts])).astype(np.int32)
    prompts = [question.prompt_ids for question, _ in keys]
    columns = {
        "context_id": pa.repeat(pa.scalar(""), count),
        "answer_context_id": pa.repeat(pa.scalar(""), count),
        "prompt_id": pa.array([question.gold.prompt_id for question, _ in keys]),
        "seed": pa.array([seed for _, seed in keys], pa.int64()),
        "benchmark": pa.array([question.benchmark for question, _ in keys]),
        "problem_id": pa.array([question.problem_id for question, _ in keys]),
        "prompt_ids": pa.array(prompts, pa.list_(pa.int32())),
        "start": pa.repeat(pa.scalar(0, pa.int32()), count),
        "limit": pa.repeat(pa.scalar(LIMITS[-1], pa.int32()), count),
        "trace_ids": lists(np.concatenate(traces), lengths),
        "trace_tokens": pa.array(lengths),
        "loop_at": pa.array([find(trace) for trace in traces], pa.int32()),
        "trace_text": pa.array(["7" * int(length) for length in lengths]),
        "ended": pa.array(lengths < LIMITS[-1]),
        "derived_seed": pa.repeat(pa.scalar(False), count),
        "waits": pa.repeat(pa.scalar(0, pa.int32()), count),
        "answers": pa.ListArray.from_arrays(offsets, structs),
        "weights_digest": pa.repeat(pa.scalar("0" * 64), count),
        "engine": pa.repeat(pa.scalar("{}"), count),
        "worker": pa.repeat(pa.scalar("engine-1"), count),
        "created_at": pa.array(1.7e9 + np.arange(count)),
    }
    return pa.table([columns[name] for name in DRAWS.names], schema=DRAWS)


def _text_of(variant: ResolvedVariant) -> Callable[[int], str]:
    codec = ChatTokenizer.load(variant.model_path)
    return lambda token: codec.decode((token,))


def grades(variant: ResolvedVariant, table: pa.Table, correct: float, seed: int) -> pa.Table:
    """A verdict on every answer, correct in a share of `correct`."""
    golds = {question.gold.prompt_id: question.gold.gold_id for question in variant.questions}
    rng = np.random.default_rng(seed)
    rows = []
    for prompt, draw_seed, answers in zip(
        table["prompt_id"].to_pylist(), table["seed"].to_pylist(), table["answers"].to_pylist(), strict=True
    ):
        for answer in answers:
            right = bool(rng.random() < correct)
            rows.append({
                "prompt_id": prompt, "seed": draw_seed, "cut": answer["cut"], "gold_id": golds[prompt],
                "verdict": "CORRECT" if right else "INCORRECT", "extracted": "4" if right else "5",
            })  # fmt: skip
    decoding = variant.decodings[0]
    same = {"context_id": decoding.context.context_id, "answer_context_id": decoding.context.answer_context_id,
            "grader": grader_id("standard"), "cause": ""}  # fmt: skip
    return pa.Table.from_pylist([same | row for row in rows], schema=GRADES)


def fill(store: Path, resolved: ResolvedGrid, mean: int, old: bool) -> None:
    """Write every variant's draws and grades, without flushing each part to the disk."""
    template = draws(resolved.variants[0], tuple(resolved.grid.sampling.seeds), mean)
    for number, variant in enumerate(resolved.variants):
        context = variant.decodings[0].context
        table = template
        for name, value in {"context_id": context.context_id, "answer_context_id": context.answer_context_id}.items():
            column = pa.repeat(pa.scalar(value), table.num_rows)
            table = table.set_column(DRAWS.get_field_index(name), DRAWS.field(name), column)
        for folder, rows in (("draws", table), ("grades", grades(variant, table, 0.5 - 0.01 * number, number))):
            target = store / folder / context.context_id
            target.mkdir(parents=True)
            size = -(-rows.num_rows // PARTS)
            for begin in range(0, rows.num_rows, size):
                part = rows.slice(begin, size)
                if old and folder == "draws":
                    part = as_version_2(part)
                pq.write_table(part, target / f"{uuid.uuid4().hex}.parquet", compression="zstd")


def as_version_2(rows: pa.Table) -> pa.Table:
    """The rows without the columns that version 3 added."""
    kept = [field for field in ANSWER if field.name != "answer_tokens"]
    answers = rows["answers"].combine_chunks()
    flat = answers.flatten()
    structs = pa.StructArray.from_arrays([flat.field(field.name) for field in kept], fields=kept)
    offsets = np.append(0, np.cumsum([len(several) for several in answers])).astype(np.int32)
    columns = {"answers": pa.ListArray.from_arrays(offsets, structs)}
    return pa.table([columns.get(name, rows[name]) for name in DRAWS_2.names], schema=DRAWS_2)


def timed(grid: Path, *command: str) -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "orchestrator", *command[:1], str(grid), *command[1:]],
                   cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)  # fmt: skip
    print(f"{command[0]}: {time.monotonic() - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=30)
    parser.add_argument("--trace", type=int, default=2000, help="mean tokens of a trace that does not loop")
    parser.add_argument("--keep", help="a new folder for the store, which stays; a temporary one if left out")
    parser.add_argument("--old", action="store_true", help="write draws as version 2 did")
    options = parser.parse_args()
    with contextlib.nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as folder:
        Path(folder).mkdir(exist_ok=True)
        grid = write_grid(Path(folder), options.variants)
        resolved = resolve_grid(read_grid(grid))
        fill(Path(folder, "store"), resolved, options.trace, options.old)
        size = sum(file.stat().st_size for file in Path(folder, "store").rglob("*.parquet"))
        print(f"{len(resolved.variants) * sum(SIZES.values()) * 3:,} draws, {size / 1e6:,.0f} MB: {grid}")
        for command in ("status", "status", "report"):
            timed(grid, command)


if __name__ == "__main__":
    main()
