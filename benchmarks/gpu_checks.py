"""The checks that need a GPU, one per call, each ending in a table; `benchmarks/gpu.sh` makes all of them.

    python -m benchmarks.gpu_checks [--device cuda|cpu] [--small] [--work DIR] PART

thread      an engine answers right in the thread that built it; stepped from another, its guard taken off, it need not
model       a random model of Qwen3-8B's shapes and two patches of it, made once in DIR and used by the other parts
answers     after swaps there and back, the greedy tokens are a fresh engine's on the exported checkpoint; on a GPU the
            engine runs as it always does there, compiled and with CUDA graphs
swap        a cold start, swaps with proof, and each step of a swap alone
throughput  8,192-token traces, 64 at a time
pruning     Wanda at 20 % on 128 windows of 2,048 tokens: seconds to the published patch, and the peak of memory

Exit 0 if what is wanted holds. `--small` is for trying the script: its figures mean nothing. `thread` and `answers`
always run on a small model, since equality does not grow with size and loading does.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.gpu_model import QWEN3_8B, SMALL, Size, model, patched
from eval.draws import Ask, Completion
from eval.spec import SamplingSpec
from pruning.files import cache_folder
from pruning.patch.export import export
from pruning.prune import prune
from pruning.spec import CalibrationSpec, PruneSpec
from workers.engines.engine import EngineFault, EngineSettings, VariantFault

SWAP_SECONDS = 3.0
SWAP_MEMORY = 0.6
"""An engine's share of a GPU while the steps of its swap are measured, which need a second copy of the weights."""
PATCH_SECONDS = 30.0
GREEDY = SamplingSpec(temperature=0.0)


@dataclass(frozen=True)
class Load:
    """How much a part does: the model, a trace's tokens, how many traces, and calibration windows [samples, tokens].

    `memory` is the engine's share of a GPU. A small model gets little: the whole of it would be ten million blocks of
    cache, which are as many Python objects.
    """

    size: Size
    trace: int
    traces: int
    windows: tuple[int, int]
    memory: float


LARGE_LOAD = Load(QWEN3_8B, trace=8192, traces=64, windows=(128, 2048), memory=0.9)
SMALL_LOAD = Load(SMALL, trace=256, traces=4, windows=(4, 64), memory=0.1)


@dataclass(frozen=True)
class Row:
    """One line of a part's table. `holds` is None for a figure of which nothing is asked."""

    claim: str
    measured: str
    wanted: str = ""
    holds: bool | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--work", type=Path, default=cache_folder() / "gpu", metavar="DIR")
    parser.add_argument("part", choices=sorted(PARTS))
    options = parser.parse_args()
    if options.part in ENGINE_PARTS and (reason := obstacle(options.device)):
        print(f"{options.part}: not run: {reason}")
        return 3
    options.work.mkdir(parents=True, exist_ok=True)
    load = SMALL_LOAD if options.small or options.part in ("thread", "answers") else LARGE_LOAD
    began = time.monotonic()
    rows = PARTS[options.part](options.work, load, options.device)
    print_table(options.part, options.device, rows, time.monotonic() - began)
    return 0 if all(row.holds is not False for row in rows) else 1


def obstacle(device: str) -> str:
    """Why no engine can run there; empty if one can."""
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        return f"vllm cannot be imported: {error}"
    if current_platform.is_cpu() != (device == "cpu"):
        return f"the vllm that is installed runs on {current_platform.device_type}, not on {device}"
    return ""


def print_table(part: str, device: str, rows: list[Row], seconds: float) -> None:
    where = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"\n{part} on {where}, torch {torch.__version__}, {seconds:.0f} s in all")
    lines = [("", "measured", "wanted", "")]
    lines += [(r.claim, r.measured, r.wanted, "" if r.holds is None else "yes" if r.holds else "NO") for r in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


# --- the parts --------------------------------------------------------------------------------------------------------


def thread(work: Path, load: Load, device: str) -> list[Row]:
    base, dense, _ = patched(work, load.size, device)

    with engine_on(base, load) as engine:
        right = engine.load(base, dense).canary_error
    elsewhere: list[str] = []

    def step_from_here() -> None:
        engine._thread = threading.get_native_id()  # the guard, which refuses this, taken off
        try:
            elsewhere.append(f"{engine.load(base, dense).canary_error:.4f}")
        except (EngineFault, VariantFault) as refused:
            elsewhere.append(str(refused))

    engine = start(base, load)
    other = threading.Thread(target=step_from_here)
    other.start()
    other.join()
    engine._thread = threading.get_native_id()
    engine.close()
    return [
        Row("canary in the thread that built the engine, nats per token", f"{right:.4f}", "accepted", True),
        Row("canary from another thread, the guard taken off", *elsewhere),
    ]


def make_model(work: Path, load: Load, device: str) -> list[Row]:
    began = time.monotonic()
    base = model(work, load.size, device)
    made = time.monotonic()
    patched(work, load.size, device)
    return [
        Row(f"{base.name}, drawn and written", f"{gigabytes(base):.2f} GB in {made - began:.1f} s"),
        Row("its digests, a dense patch and magnitude 20 %", f"{time.monotonic() - made:.1f} s"),
    ]


def answers(work: Path, load: Load, device: str) -> list[Row]:
    base, dense, pruned = patched(work, load.size, device)
    asks = prompts(load, 8, 32)
    got = []
    with engine_on(base, load) as engine:
        for patch in (dense, pruned, dense):
            engine.load(base, patch)
            got.append(generate(engine, asks))
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        exported, exported_dense = Path(scratch, "exported"), Path(scratch, "dense")
        export(base, pruned, exported)
        prune(exported, PruneSpec("dense"), exported_dense, payload={}, device=device)
        with engine_on(exported, load) as fresh:
            fresh.load(exported, exported_dense)
            expected = generate(fresh, asks)
            settings = dict(fresh.settings())
    return [
        compared("the swapped engine answers as a fresh one on the export", got[1], expected, wanted=True),
        compared("back on the first weights, it answers as at first", got[0], got[2], wanted=True),
        compared("the two variants answer alike", got[0], got[1], wanted=False),
        *(Row(name, value) for name, value in sorted(settings.items())),
    ]


def swap(work: Path, load: Load, device: str) -> list[Row]:
    from benchmarks.swap_steps import steps

    base, dense, pruned = patched(work, load.size, device)
    began = time.monotonic()
    with engine_on(base, replace(load, memory=min(load.memory, SWAP_MEMORY))) as engine:
        started = time.monotonic() - began
        seconds = [timed(engine.load, base, patch) for patch in (dense, pruned, dense, pruned)]
        alone = steps(engine, base, pruned, dense)
    size = gigabytes(base)
    warm = max(seconds[1:])
    return [
        Row("start of the engine, random weights", f"{started:.1f} s"),
        Row(f"first load, {size:.2f} GB, proof included", f"{seconds[0]:.2f} s"),
        Row(
            "slowest of three swaps, proof included",
            f"{warm:.2f} s, {size / warm:.2f} GB/s",
            f"< {SWAP_SECONDS:.0f} s",
            warm < SWAP_SECONDS,
        ),
        *(Row(f"alone: {step.name}", step.figures()) for step in alone),
    ]


def throughput(work: Path, load: Load, device: str) -> list[Row]:
    base, dense, _ = patched(work, load.size, device)
    asks = prompts(load, load.traces, load.trace)
    with engine_on(base, load) as engine:
        engine.load(base, dense)
        began = time.monotonic()
        tokens = sum(map(len, generate(engine, asks)))
        seconds = time.monotonic() - began
        settings = dict(engine.settings())
    expected = load.traces * load.trace
    return [
        Row("tokens generated", f"{tokens}", f"{expected}", tokens == expected),
        Row(f"{load.traces} traces of {load.trace} tokens", f"{tokens / seconds:.0f} tokens/s"),
        *(Row(name, value) for name, value in sorted(settings.items())),
    ]


def pruning(work: Path, load: Load, device: str) -> list[Row]:
    base = model(work, load.size, device)
    windows = work / f"{load.size.name}-windows.npy"
    if not windows.exists():
        np.save(windows, np.random.default_rng(0).integers(0, load.size.shape["vocab_size"], load.windows))
    samples, tokens = load.windows
    spec = PruneSpec("wanda", sparsity=0.2, calibration=CalibrationSpec(str(windows), samples, tokens))
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        began = time.monotonic()
        made = prune(base, spec, Path(scratch, "patch"), payload={}, device=device)
        seconds = time.monotonic() - began
    return [
        Row(
            f"wanda 20 %, {samples} windows of {tokens} tokens, proof included",
            f"{seconds:.1f} s",
            f"< {PATCH_SECONDS:.0f} s",
            seconds < PATCH_SECONDS,
        ),
        Row("peak of the device's memory", f"{made.peak_memory_bytes / 1e9:.2f} GB"),
        Row("patch, as a share of the checkpoint", f"1/{gigabytes(base) * 1e9 / made.bytes:.1f}"),
    ]


Part = Callable[[Path, Load, str], list[Row]]
PARTS: dict[str, Part] = {
    "thread": thread,
    "model": make_model,
    "answers": answers,
    "swap": swap,
    "throughput": throughput,
    "pruning": pruning,
}
ENGINE_PARTS = ("thread", "answers", "swap", "throughput")


# --- what the parts share ---------------------------------------------------------------------------------------------


def start(base: Path, load: Load):
    from workers.engines.vllm_engine import VllmEngine

    context = min(load.size.shape["max_position_embeddings"], load.trace + 512)
    settings = EngineSettings("bfloat16", context, max_sequences=load.traces, gpu_memory_utilization=load.memory)
    return VllmEngine(base, None, settings)


@contextmanager
def engine_on(base: Path, load: Load) -> Iterator:
    engine = start(base, load)
    try:
        yield engine
    finally:
        engine.close()


def generate(engine, asks: list[Ask]) -> list[tuple[int, ...]]:
    """The token ids of each ask, in order."""
    for number, ask in enumerate(asks):
        engine.submit(str(number), ask, GREEDY)
    got: dict[str, tuple[int, ...]] = {}
    while len(got) < len(asks):
        for done in engine.step():
            assert isinstance(done.completion, Completion), done.completion
            got[done.name] = done.completion.token_ids
    return [got[str(number)] for number in range(len(asks))]


def prompts(load: Load, count: int, tokens: int) -> list[Ask]:
    """Different prompts of 200 tokens, longer than a block of the key-value cache."""
    few = min(64, load.size.shape["vocab_size"])
    return [
        Ask("trace", tuple((7 * i + 3 * n + i * n) % few for i in range(200)), tokens, (), (), n) for n in range(count)
    ]


def compared(claim: str, left: list, right: list, wanted: bool) -> Row:
    same = sum(a == b for a, b in zip(left, right, strict=True))
    holds = (same == len(left)) == wanted
    return Row(claim, f"{same} of {len(left)}", "all" if wanted else "not all", holds)


def timed(function, *values) -> float:
    began = time.monotonic()
    function(*values)
    return time.monotonic() - began


def gigabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9


if __name__ == "__main__":
    sys.exit(main())
