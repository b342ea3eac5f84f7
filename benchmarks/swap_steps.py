"""What each step of a swap costs when it is done alone: seconds, bytes and rate, beside the whole swap.

In a swap the steps overlap: threads read and decode ahead, others digest behind, and the thread that loads copies,
repacks and waits. So the steps' seconds add up to more than the swap's; the longest of them, and what one thread has to
do one after the other (load, canary, and on a device clear and digest), are what bounds it.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pruning.model.checkpoint import Checkpoint
from pruning.model.tree_digest import tree_digest
from pruning.patch.patch import Patch
from pruning.prefetch import spare_threads
from workers.engines.swap_extension import SWAP_THREADS, zero
from workers.engines.vllm_engine import VllmEngine

ROUNDS = 3


@dataclass(frozen=True)
class Step:
    """Median `seconds` of one step, and the bytes that it moves; 0 where bytes say nothing."""

    name: str
    seconds: float
    size: int

    def figures(self) -> str:
        rate = f", {self.size / 1e9:.2f} GB, {self.size / self.seconds / 1e9:.2f} GB/s" if self.size else ""
        return f"{self.seconds:.3f} s{rate}"


def steps(engine: VllmEngine, base: Path, pruned: Path, dense: Path) -> list[Step]:
    """The steps of a swap to `pruned`, each done alone; last, whole swaps to it and to `dense`, which has nothing to
    decode.

    The engine has been loaded before, and holds one of the two, proved, at the end. Needs memory for a second copy of
    the weights on the engine's device.
    """
    worker: Any = engine._engine.collective_rpc(lambda worker: worker)[0]
    checkpoint, files = Checkpoint.open(base), list(base.glob("*.safetensors"))
    device: torch.device = worker.device
    threads = spare_threads(SWAP_THREADS)
    weights = sum(file.stat().st_size for file in files)
    caches = list(getattr(worker.model_runner, "kv_caches", []))
    made = Patch.open(pruned, verify=False)
    ready = dict(made.weights(checkpoint, device=device))

    def land() -> None:
        for _ in made.weights(checkpoint, ahead=threads, device=device):
            pass

    def load() -> None:
        worker.reload_weights(weights_iterator=iter(ready.items()))

    def digest() -> None:
        with ThreadPoolExecutor(threads if device.type == "cpu" else 1) as pool:
            list(pool.map(tree_digest, ready.values()))

    def canary() -> None:
        engine._engine.reset_prefix_cache()
        engine._canary_error(checkpoint, made)

    def seconds(act: Callable[[], object]) -> float:
        began = time.monotonic()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic() - began

    def step(name: str, size: int, act: Callable[[], object]) -> Step:
        return Step(name, median(seconds(act) for _ in range(ROUNDS)), size)

    of_patch = sum(file.stat().st_size for file in made.folder.iterdir())
    cleared = sum(cache.nbytes for cache in caches)
    alone = [
        step("plain read of the weight files", weights, lambda: [len(file.read_bytes()) for file in files]),
        step("the patch's files digested", of_patch, lambda: Patch.open(made.folder)),
        step(f"read, decode and land, {threads} ahead", weights, land),
        step("vLLM's reload: copies, on a CPU repacks", weights, load),
        step("tree digest of all tensors", weights, digest),
        step("key-value cache cleared", cleared, lambda: zero(caches)),
    ]
    ready.clear()
    engine.load(base, pruned)
    alone.append(step("canary", 0, canary))
    whole = [
        (seconds(lambda: engine.load(base, dense)), seconds(lambda: engine.load(base, pruned))) for _ in range(ROUNDS)
    ]
    to_dense, to_pruned = map(median, zip(*whole, strict=True))
    return [
        *alone,
        Step("the whole swap, proof included", to_pruned, weights),
        Step("the whole swap to the unpruned model", to_dense, weights),
    ]
