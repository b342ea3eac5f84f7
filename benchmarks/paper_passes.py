"""How often a model is run and read to make the paper's patches: one by one, together, and split over devices.

    python -m benchmarks.paper_passes

Pruned are the variants of one model of examples/paper/grid.yaml, with a random model of 28 small blocks and small
calibration sets in the place of the real ones: what is counted depends on neither. "One by one" calls `prune_each` for
each variant; the others call it for each task into which the sweep's core would divide them for so many pruners.
LayerIF's scores are kept on the machine's disk, as in a sweep, and the checkpoint's digests are there before.

A *pass* runs every block forward once over all windows of a calibration set. To pass pruned activations on, a block is
run twice; for LayerIF a sweep of gradients runs each block twice forward (and once backward), on training and on
validation windows. A *read* is the bytes of the checkpoint, once. Both are counted in two ways: by what pruning says
while it works (a line for each block or sweep; the proof of each patch reads its blocks once), and as observed: forward
calls of decoder blocks, and what the process read (rchar in /proc/self/io) less what is not of the checkpoint: the
patches read back, and LayerIF's mean gradients (4 bytes per weight, once).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from orchestrator.grid.parse import read_grid
from orchestrator.scheduler.placement import share_out
from orchestrator.scheduler.work import Policy
from pruning.allocators.shared_passes import shared_passes
from pruning.model.calibration import load_windows
from pruning.model.checkpoint import Checkpoint
from pruning.patch.manifest import MANIFEST
from pruning.prune import PruneJob, needs_own_pass, prune_each
from pruning.spec import DATA_FIELDS, CalibrationSpec, PruneSpec, describe

ROOT = Path(__file__).parent.parent
TINY = ROOT / "examples" / "tiny"
LAYERS, HIDDEN = 28, 128
SAMPLES, TOKENS = 8, {"c4": 24, "pg19": 16}
"""The sets have windows of different lengths, by which a forward call shows on which it is."""


@dataclass
class Count:
    """Passes and model reads, as told and as observed."""

    passes: float = 0.0
    reads: float = 0.0
    passes_seen: float = 0.0
    reads_seen: float = 0.0
    size: int = 0
    """Bytes of the checkpoint."""
    tasks: int = 0
    longest: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)

    def told(self, text: str, again: frozenset[str]) -> None:
        """Count a line of progress. `again`: the descriptions of specs that run each block twice."""
        if re.fullmatch(r"gradients of sample \d+/\d+", text):
            self.passes += 2
            self.reads += 2
            self.by_kind["gradients"] += 2
        elif found := re.fullmatch(r"(.+): layer \d+/\d+", text):
            self.reads += 1 / LAYERS
            what = found[1]
            if what not in ("masks", "weight statistics"):
                runs = 2 if what in again and not text.endswith(f" {LAYERS}/{LAYERS}") else 1
                self.passes += runs / LAYERS
                self.by_kind["unpruned" if what == "dense statistics" else "own"] += runs / LAYERS


def print_counts() -> None:
    """Count each way in a process of its own, and print a table."""
    print("passes and model reads for one model of the paper's grid: counted (observed)")
    for name, pruners in {"one by one": 0, "together, 1 pruner": 1, "together, 8 pruners": 8}.items():
        count = apart(counted, pruners)
        kinds = ", ".join(f"{value:.2f} {kind}" for kind, value in sorted(count.by_kind.items()))
        megabytes = f"{count.reads_seen * count.size / 1e6:.0f} MB of a {count.size / 1e6:.0f} MB checkpoint"
        print(
            f"{name:20} {count.passes:5.2f} ({count.passes_seen:5.2f}) passes: {kinds}; "
            f"{count.reads:5.2f} ({count.reads_seen:5.2f}) reads, {megabytes}; "
            f"{count.tasks} tasks, the longest of {count.longest}"
        )


def apart(function: Callable[[int], Count], value: int) -> Count:
    """Call in a fresh process, whose reads are its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (value,))


def counted(pruners: int) -> Count:
    """Prune the grid's variants; `pruners` = 0: one by one."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["PRUNESWEEP_CACHE"] = str(folder / "cache")
        make_model(folder / "model")
        specs = paper_specs()
        base = Checkpoint.open(folder / "model")
        size = sum(header.end - header.begin for header in base.tensors.values())
        for spec in (PruneSpec("dense"), specs[-1]):  # what is read once a process or a machine: libraries, digests
            for source in (spec.calibration, spec.influence_train):
                if source is not None:
                    load_windows(source, base)
            base.tensor_digests()
        prune_all(folder / "model", [[PruneSpec("dense")]], folder / "warm", Count())
        count = Count(tasks=len(specs), longest=1)
        tasks = [[spec] for spec in specs]
        if pruners:
            passes = {str(n): tuple(("", name) for name in shared_passes(spec)) for n, spec in enumerate(specs)}
            names = share_out(passes, pruners, Policy().largest_pruning)
            tasks = [[specs[int(n)] for n in sorted(task, key=int)] for task in names]
            count.tasks, count.longest = len(tasks), max(map(len, tasks))
        count.size = size
        with Observed(count):
            written = prune_all(folder / "model", tasks, folder / "patches", count)
        weights = sum(map(sum, base.part_sizes.values()))
        count.reads_seen -= (written + 4 * weights) / size
        return count


def prune_all(model: Path, tasks: Sequence[Sequence[PruneSpec]], folder: Path, count: Count) -> int:
    """Make the patches of all tasks; returns the bytes of their layer files, which are read back once."""
    written = 0
    for number, specs in enumerate(tasks):
        again = frozenset(describe(spec) for spec in specs if needs_own_pass(spec) and spec.propagate == "pruned")
        jobs = [PruneJob(spec, folder / f"{number}-{n}", {}) for n, spec in enumerate(specs)]
        for job, manifest in prune_each(model, jobs, progress=lambda text, again=again: count.told(text, again)):
            if isinstance(manifest, ValueError):
                raise manifest
            count.reads += len(manifest.kept_layers) / LAYERS
            written += manifest.bytes
            assert (job.destination / MANIFEST).is_file()
    return written


class Observed:
    """Inside a `with`: counts decoder blocks' forward calls on calibration windows, and bytes that the process read."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def __enter__(self) -> None:
        self._hook = register_module_forward_pre_hook(self._see)
        self._before = read_bytes()

    def __exit__(self, *_error: object) -> None:
        self._hook.remove()
        self._count.reads_seen += (read_bytes() - self._before) / self._count.size

    def _see(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if type(module).__name__.endswith("DecoderLayer") and inputs[0].shape[1] in TOKENS.values():
            self._count.passes_seen += inputs[0].shape[0] / SAMPLES / LAYERS


def read_bytes() -> int:
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


def paper_specs() -> list[PruneSpec]:
    """The specs of one model of the paper's grid, on small calibration sets."""
    grid = read_grid(ROOT / "examples" / "paper" / "grid.yaml")
    specs = [variant.spec for variant in grid.variants if variant.model == grid.variants[0].model]
    return [
        replace(spec, **{name: small(value) for name in DATA_FIELDS if (value := getattr(spec, name)) is not None})
        for spec in specs
    ]


def small(source: CalibrationSpec) -> CalibrationSpec:
    return replace(
        source, data=str(TINY / "calibration.jsonl"), samples=SAMPLES, tokens=TOKENS[source.data], windows="packed"
    )


def make_model(folder: Path) -> None:
    """The tiny model's tokenizer and kind, with more and wider blocks of random weights, in bfloat16."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(TINY / "model", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    told = json.loads((folder / "config.json").read_text())
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = HIDDEN, 3 * HIDDEN, LAYERS
    config.layer_types = told["layer_types"][:1] * LAYERS
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    print_counts()
