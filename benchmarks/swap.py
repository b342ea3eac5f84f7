"""A swap of weights, proof included, against a cold start and against a plain read of the checkpoint.

    python -m benchmarks.swap [--parameters 300]

First at the size of the demo, then with a random Qwen3 of about `--parameters` million parameters. There are two cold
starts, and both are printed:

process  what the straightforward loop pays for each variant (benchmarks/sweep.py runs it): a fresh process imports
         vLLM, loads the checkpoint by vLLM's own loader, in vLLM's fastest arrangement, and makes one token
engine   only a further engine of ours in this process, warm with all imports, and its first load: what a worker pays
         for a variant of another shape. No loop over variants is as cheap, so it is here to be known, not to be beaten

Swaps and reads take turns, so that a busy machine slows both, and the median of each counts; the best of each is
printed too. The file is in the page cache for both. A plain read is `Path.read_bytes` of every weight file. A swap
keeps two threads busy and a read one: on two cores of which others use one, the ratio falls. Then each step alone, with
its bytes and rate (benchmarks/swap_steps.py).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.swap_steps import steps
from pruning.prune import prune
from pruning.spec import PruneSpec
from workers.engines.engine import EngineSettings
from workers.engines.vllm_engine import VllmEngine

ROOT = Path(__file__).parent.parent
TINY = ROOT / "examples" / "tiny" / "model"
FRESH_PROCESS = """
import os, sys
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
from vllm import LLM, SamplingParams, TokensPrompt
llm = LLM(
    model=sys.argv[1], dtype="bfloat16", enforce_eager=True, kv_cache_memory_bytes=128 << 20, max_model_len=512,
    enable_chunked_prefill=False, max_num_batched_tokens=4096, generation_config="vllm",
)
llm.generate([TokensPrompt(prompt_token_ids=[5] * 16)], SamplingParams(max_tokens=1), use_tqdm=False)
print("answered", flush=True)
sys.stdin.read()
"""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def checkpoint(folder: Path, millions: int) -> Path:
    """A random Qwen3 checkpoint with the tiny reasoner's tokenizer."""
    hidden, layers = 1024, max(2, round(millions / 15.7))
    config = Qwen3Config(
        vocab_size=1024, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in TOKENIZER:
        if (TINY / name).exists():
            (folder / name).write_bytes((TINY / name).read_bytes())
    return folder


def fresh_process(model: Path) -> float:
    """Seconds from the start of a process to the first token of its engine."""
    began = time.monotonic()
    command = [sys.executable, "-c", FRESH_PROCESS, str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not any(b"answered" in line for line in process.stdout):
            raise RuntimeError(f"vLLM's own loader did not answer from {model}; run it by hand to see why")
        seconds = time.monotonic() - began
        process.kill()
    return seconds


def measure(label: str, base: Path, scratch: Path) -> None:
    dense, pruned = scratch / "dense", scratch / "pruned"
    prune(base, PruneSpec("dense"), dense, payload={})
    prune(base, PruneSpec("magnitude", sparsity=0.2), pruned, payload={})
    process = fresh_process(base)
    settings = EngineSettings(dtype="bfloat16", context_length=512, cpu_cache_mib=128)
    VllmEngine(base, None, settings).close()  # whatever only the first engine of a process pays
    began = time.monotonic()
    engine = VllmEngine(base, None, settings)
    engine.load(base, dense)
    cold = time.monotonic() - began
    swaps, reads, files = [], [], list(base.glob("*.safetensors"))
    for patch in (pruned, dense) * 6:
        began = time.monotonic()
        engine.load(base, patch)
        swaps.append(time.monotonic() - began)
        began = time.monotonic()
        size = sum(len(file.read_bytes()) for file in files)
        reads.append(time.monotonic() - began)
    alone = steps(engine, base, pruned, dense)
    engine.close()
    print(f"{label}: {size / 1e9:.3f} GB; cold start {process:.2f} s (process), {cold:.2f} s (engine)")
    for name, of in (("median", median), ("best", min)):
        swap, read = of(swaps), of(reads)
        print(
            f"  {name:6} swap with proof {swap:.3f} s, 1/{process / swap:.0f} of a cold start (demo: 1/50 wanted), "
            f"1/{cold / swap:.0f} of an engine's; "
            f"{size / swap / 1e9:.2f} GB/s, {read / swap:.2f} of a plain read's {size / read / 1e9:.2f} (0.6 wanted)"
        )
    print("  its steps, each done alone:")
    for step in alone:
        print(f"    {step.name:40} {step.figures()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=300, help="millions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "small").mkdir()
        measure("the demo's model", TINY, Path(scratch, "small"))
        Path(scratch, "large").mkdir()
        measure("random weights", checkpoint(Path(scratch, "model"), options.parameters), Path(scratch, "large"))


if __name__ == "__main__":
    main()
