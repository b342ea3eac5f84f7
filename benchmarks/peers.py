"""Pruning against llm-compressor: the same model, windows and threads, whole processes, taking turns.

    python -m benchmarks.peers [--rounds 3] [--samples 32] [--tokens 512] [--only NAME ...] [--keep DIR]

The model has SmolLM2-135M's shapes and random weights. Both write what they make: this package a proved patch, the peer
a checkpoint. Wall time and peak memory are those of the whole process, imports included, as whoever runs it pays them;
a machine that others use slows both, and medians are compared. `wanda` and `sparsegpt` prune 20 %, `sparsegpt-2:4` two
of four. The peer is installed once, below the cache folder, in an environment of its own with this one's torch.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from pruning.files import cache_folder

PEER = "llmcompressor==0.14.0.1"
THREADS = 2
TOKENIZER = Path(__file__).parent.parent / "examples" / "tiny" / "model"
SHAPE = dict(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
)  # fmt: skip
PEER_CODE = """
import json, sys
import numpy as np
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
model, windows, modifier, settings, output = sys.argv[1:]
tokens = np.load(windows)
data = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": np.ones_like(tokens).tolist()})
kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[modifier]
recipe = kind(targets=["Linear"], ignore=["lm_head"], **json.loads(settings))
oneshot(
    model=model, dataset=data, recipe=recipe, output_dir=output,
    num_calibration_samples=len(tokens), max_seq_length=tokens.shape[1],
)
"""


@dataclass(frozen=True)
class Case:
    """One pruning as both are asked for it, and how it should compare: most wall time, most memory, least size."""

    name: str
    method: str
    ours: tuple[str, ...]
    peer: dict[str, object]
    wall: float | None
    memory: float | None = 0.9
    smaller: float | None = None


CASES = (
    Case("wanda", "wanda", ("--sparsity=0.2",), {"sparsity": 0.2}, wall=0.7, smaller=20),
    Case("sparsegpt", "sparsegpt", ("--sparsity=0.2",), {"sparsity": 0.2}, wall=0.6),
    Case("sparsegpt-2:4", "sparsegpt", ("--pattern=2:4",), {"sparsity": 0.5, "mask_structure": "2:4"}, wall=0.6),
)


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall time, peak resident bytes, and bytes of weights written."""

    seconds: float
    memory: int
    size: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], default=[c.name for c in CASES])
    parser.add_argument("--keep", metavar="DIR", type=Path, help="make the model here and leave it")
    options = parser.parse_args()
    peer = peer_python()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        model, windows = folder / "model", folder / "windows.npy"
        if not model.exists():
            make_model(model)
        np.save(windows, np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (options.samples, options.tokens)))
        print(
            f"{options.samples} windows of {options.tokens} tokens, {THREADS} threads each, torch {torch.__version__}"
        )
        print(f"against {PEER}, medians of {options.rounds}")
        chosen = [case for case in CASES if case.name in options.only]
        found: dict[str, list[tuple[Run, Run]]] = {case.name: [] for case in chosen}
        for _ in range(options.rounds):
            for case in chosen:
                mine, theirs = Path(scratch, "patch"), Path(scratch, "peer")
                pair = (
                    run(our_command(case, model, windows, mine), mine),
                    run([peer, "-c", PEER_CODE, model, windows, case.method, json.dumps(case.peer), theirs], theirs),
                )
                found[case.name].append(pair)
                print(f"  {case.name}: {pair[0].seconds:.1f} s, the peer {pair[1].seconds:.1f} s", flush=True)
        for case in chosen:
            print_comparison(case, *zip(*found[case.name], strict=True))


def our_command(case: Case, model: Path, windows: Path, patch: Path) -> list[str | Path]:
    command: list[str | Path] = [sys.executable, "-m", "pruning", model, "--method", case.method, *case.ours]
    samples, tokens = np.load(windows).shape
    return [*command, "--calibration", windows, f"--samples={samples}", f"--tokens={tokens}", "--patch", patch]


def run(command: list[str | Path], output: Path) -> Run:
    """Run a process to its end; measure its output and remove it. Raises SystemExit with its last lines if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        memory = 0
        while process.poll() is None:
            memory = max(memory, high_water(process.pid))
            time.sleep(0.02)
        seconds = time.monotonic() - began
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{command} failed:\n" + log.read().decode(errors="replace")[-3000:])
    size = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    shutil.rmtree(output)
    return Run(seconds, memory, size)


def high_water(pid: int) -> int:
    """The most memory that a process has had so far, in bytes; 0 once it has ended.

    Not `ru_maxrss`, which counts the memory of whoever forked it.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def print_comparison(case: Case, ours: tuple[Run, ...], theirs: tuple[Run, ...]) -> None:
    def line(name: str, mine: float, other: float, unit: str, most: float | None) -> None:
        wanted = "" if most is None else f"  at most {most}: {'yes' if mine / other <= most else 'NO'}"
        print(f"  {name:8} {mine:9.2f} {other:9.2f} {unit:3} ratio {mine / other:.3f}{wanted}")

    print(f"{case.name:10} {'ours':>9} {'peer':>9}")
    line("wall", median(r.seconds for r in ours), median(r.seconds for r in theirs), "s", case.wall)
    line("memory", median(r.memory for r in ours) / 1e9, median(r.memory for r in theirs) / 1e9, "GB", case.memory)
    line("output", ours[0].size / 1e6, theirs[0].size / 1e6, "MB", case.smaller and 1 / case.smaller)


def make_model(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # the peer wants one, and uses none
        shutil.copy(TOKENIZER / name, folder)


def peer_python() -> Path:
    """The interpreter of the peer's environment, which is made if it is not there."""
    folder = cache_folder() / "peers" / f"{PEER.replace('==', '-')}-torch-{torch.__version__}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER, f"torch=={torch.__version__}"], check=True)
        (folder / "ready").touch()
    return python


if __name__ == "__main__":
    main()
