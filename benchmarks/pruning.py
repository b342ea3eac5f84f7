"""What pruning costs and what a patch weighs, as ratios measured in one run on this machine.

    python -m benchmarks.pruning [--device cuda] [--layers N] [--hidden N] [--samples N] [--tokens N] [--keep DIR]

A model of random weights (about 450 M parameters by default) is pruned by Wanda twice, each time in a process of its
own so that peak memory is that run's: by this package (digests, read-back and canary included), and by the
straightforward way (whole model in memory, one window at a time, statistics by hooks, a stable sort of every row).
Then the patch's size and decode speed are measured at 10 % and 20 %. With --device cuda only this package's run is
timed. Last, the calibration passes and the bytes read for the paper's grid are counted, its patches made one by one and
together: see benchmarks/paper_passes.py.

Seconds are CPU seconds of one thread, so that other load on the machine does not decide the ratio. The calibration set
is small on purpose: both implementations forward every token twice, which on a CPU soon outweighs their differences.
Memory is the peak above what importing torch and transformers takes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pruning.model.memory import peak_memory

SPARSITIES = (0.1, 0.2)
MODEL_CODE = "transformers.models.qwen3.modeling_qwen3"


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.keep or scratch)
        os.environ["PRUNESWEEP_CACHE"] = str(folder / "cache")
        model_dir, windows = folder / "model", folder / "windows.npy"
        if not model_dir.exists():
            apart(make_model, model_dir, options.hidden, options.layers)
        vocabulary = json.loads((model_dir / "config.json").read_text())["vocab_size"]
        np.save(windows, np.random.default_rng(0).integers(0, vocabulary, (options.samples, options.tokens)))
        size = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
        print(f"device        {describe_device(options.device)}")
        print(f"model         {size / 2 / 1e6:.0f} M parameters, bfloat16, {options.layers} layers")
        print(f"calibration   {options.samples} x {options.tokens} tokens, computed in float32")
        ours = apart(wanda_here, model_dir, windows, folder / "patch-0.2", 0.2, options.device)
        print(f"this package  {ours['seconds']:8.1f} s {ours['memory'] / 2**30:8.2f} GiB peak to masks on disk")
        print(f"              {ours['proved']:8.1f} s with read-back, canary and manifest")
        if options.device == "cpu":
            plain = apart(wanda_plainly, model_dir, windows, folder / "masks.npz", 0.2)
            print(f"plain wanda   {plain['seconds']:8.1f} s {plain['memory'] / 2**30:8.2f} GiB peak to masks on disk")
            print(f"speed-up      {plain['seconds'] / ours['seconds']:8.2f} x, target at least 2")
            print(f"memory        {ours['memory'] / plain['memory']:8.3f} x, target at most 0.333")
            first, overall = apart(compare, model_dir, folder / "patch-0.2", folder / "masks.npz")
            print(f"masks         {first:.1e} of the first block's keep bits differ, {overall:.1e} of all:")
            print("              float32 summation order flips one, and a random network spreads it")
        apart(wanda_here, model_dir, windows, folder / "patch-0.1", 0.1, options.device)
        for sparsity, target in zip(SPARSITIES, (25, 16), strict=True):
            decoded = apart(decode_speed, model_dir, folder / f"patch-{sparsity}")
            print(
                f"patch {sparsity:.0%}     {size / decoded['bytes']:8.1f} x smaller than the checkpoint "
                f"(target {target}), decodes {decoded['rate'] / 1e9:.2f} GB/s of weights on one core (target 1)"
            )
    from benchmarks.paper_passes import print_counts  # only now: its imports are no part of what is measured above

    print_counts()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--keep", metavar="DIR", help="make the model and patches here and leave them")
    return parser.parse_args()


def apart(function, *values):
    """Run in a fresh process, since a process cannot lower its peak memory."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(send, function, values))
    process.start()
    send.close()
    try:
        result = receive.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} failed; see above") from None
    process.join()
    return result


def _send_result(send, function, values) -> None:
    send.send(function(*values))


def make_model(folder: Path, hidden: int, layers: int) -> None:
    """Qwen3's proportions with random weights, in shards; embeddings small, since they are not what is pruned."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=8192,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
        num_key_value_heads=max(1, hidden // 512),
        head_dim=128,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def wanda_here(model_dir: Path, windows: Path, destination: Path, sparsity: float, device: str) -> dict[str, float]:
    importlib.import_module(MODEL_CODE)  # before memory is first read, so that libraries do not count

    from pruning.prune import prune
    from pruning.spec import CalibrationSpec, PruneSpec

    compute = "float32" if device == "cpu" else "stored"
    spec = PruneSpec("wanda", sparsity=sparsity, calibration=CalibrationSpec(str(windows), compute=compute))
    on_gpu = device != "cpu"
    before, clock = 0 if on_gpu else peak_memory(device), time.perf_counter if on_gpu else time.process_time
    marks = [clock()]
    prune(model_dir, spec, destination, payload={}, device=device, progress=lambda _text: marks.append(clock()))
    proved = clock() - marks[0]
    return {"seconds": marks[-1] - marks[0], "proved": proved, "memory": peak_memory(device) - before}


def wanda_plainly(model_dir: Path, windows: Path, masks: Path, sparsity: float) -> dict[str, float]:
    """Wanda written in the obvious way; like ours it ends with the masks on disk."""
    importlib.import_module(MODEL_CODE)  # before memory is first read, so that libraries do not count
    from transformers import AutoModelForCausalLM

    before = peak_memory("cpu")
    started = time.process_time()
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    hidden, options = _first_inputs(model, torch.from_numpy(np.load(windows)))
    outputs = [torch.zeros_like(window) for window in hidden]
    dropped: dict[str, np.ndarray] = {}
    for index, layer in enumerate(model.model.layers):
        linears = {name: m for name, m in layer.named_modules() if isinstance(m, torch.nn.Linear)}
        squares = {name: torch.zeros(m.in_features) for name, m in linears.items()}

        def gather(name, squares=squares):
            def hook(_module, entered, _left):
                squares[name] += torch.norm(entered[0][0].t().float(), p=2, dim=1) ** 2

            return hook

        handles = [m.register_forward_hook(gather(name)) for name, m in linears.items()]
        with torch.no_grad():
            for i, window in enumerate(hidden):
                outputs[i] = layer(window, **options)
            for handle in handles:
                handle.remove()
            for name, module in linears.items():
                metric = module.weight.abs() * squares[name].sqrt().reshape(1, -1)
                order = torch.sort(metric, dim=-1, stable=True)[1]
                mask = torch.zeros_like(metric, dtype=torch.bool)
                mask.scatter_(1, order[:, : int(metric.shape[1] * sparsity)], True)
                module.weight[mask] = 0
                dropped[f"model.layers.{index}.{name}.weight"] = np.packbits(mask.numpy())
            for i, window in enumerate(hidden):
                outputs[i] = layer(window, **options)
        hidden, outputs = outputs, hidden
    np.savez(masks, **dropped)
    return {"seconds": time.process_time() - started, "memory": peak_memory("cpu") - before}


def _first_inputs(model, windows):
    """Inputs of the first block and the keyword arguments that transformers passes to every block."""
    seen = []

    def catch(_module, entered, options):
        seen.append((entered[0].detach().clone(), options))

    handle = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    layers, model.model.config.num_hidden_layers = model.model.config.num_hidden_layers, 1
    with torch.no_grad():
        for window in windows:
            model.model(window[None], use_cache=False)
    model.model.config.num_hidden_layers = layers
    handle.remove()
    return [hidden for hidden, _ in seen], seen[0][1]


def compare(model_dir: Path, patch: Path, masks: Path) -> tuple[float, float]:
    """Share of keep bits in which the two implementations differ, in the first block and in all."""
    from pruning.model.checkpoint import Checkpoint
    from pruning.model.tensors import read_tensor
    from pruning.patch.patch import Patch

    base, plain = Checkpoint.open(model_dir), np.load(masks)
    differing, total = {True: 0, False: 0}, {True: 0, False: 0}
    for name, tensor in Patch.open(patch).weights(base):
        if name in plain:
            alive = (read_tensor(base.tensors[name]) != 0).numpy()
            other = np.unpackbits(plain[name], count=alive.size).astype(bool).reshape(alive.shape)
            first = name.startswith("model.layers.0.")
            differing[first] += int((alive & ((tensor == 0).numpy() != other)).sum())
            total[first] += alive.size
    return differing[True] / total[True], sum(differing.values()) / sum(total.values())


def decode_speed(model_dir: Path, folder: Path) -> dict[str, float]:
    """Bytes of weights per second from a layer file and the base layer, both in memory, on one core."""
    from pruning.model.architecture import LINEARS
    from pruning.model.checkpoint import Checkpoint
    from pruning.model.tensors import layer_tensors
    from pruning.patch.block_files import layer_file, read_layer
    from pruning.patch.patch import Patch

    torch.set_num_threads(1)
    base, patch = Checkpoint.open(model_dir), Patch.open(folder)
    seconds, volume = 0.0, 0
    for index in patch.manifest.kept_layers:
        tensors = layer_tensors(base, index)
        linears = {linear: tensors[f"{linear}.weight"] for linear in LINEARS}
        file = folder / layer_file(index)
        file.read_bytes()
        started = time.process_time()
        for _, weight in read_layer(file, linears):
            volume += weight.numel() * weight.element_size()
        seconds += time.process_time() - started
    return {"rate": volume / seconds, "bytes": patch.manifest.bytes + (folder / "manifest.json").stat().st_size}


def describe_device(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
