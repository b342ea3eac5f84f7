"""Perplexity of every stored variant of a grid, on text and on what the dense model wrote in the sweep.

    python -m benchmarks.perplexity examples/smollm2/grid.yaml --text examples/smollm2/held-out.jsonl

By transformers, in float32, on the weights that base and patch give: neither vLLM nor our own forward passes take
part, so it is a check of the patches, too. Perplexity is exp of the mean negative log-likelihood of all tokens of a
window but the first.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from orchestrator.cli import open_store
from orchestrator.grid.parse import read_grid
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.results.export import traces
from orchestrator.store.store import Store
from pruning.model.calibration import load_windows
from pruning.model.checkpoint import Checkpoint
from pruning.patch.patch import Patch
from pruning.spec import CalibrationSpec


def reasoning(store: Store, resolved: ResolvedGrid, tokens: int, most: int) -> np.ndarray:
    """The dense model's traces on the evaluated problems, joined and cut: int64 [windows, tokens]."""
    dense = next(variant for variant in resolved.variants if variant.dense)
    rows = [row["token_ids"] for row in traces(store, resolved, dense)]
    joined = [token for row in rows for token in row]
    count = min(most, len(joined) // tokens)
    return np.array(joined[: count * tokens], dtype=np.int64).reshape(count, tokens)


def model_of(base: Checkpoint, folder: Path) -> AutoModelForCausalLM:
    """Base and patch as a transformers model in float32."""
    patch = Patch.open(folder)
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "config.json").write_text(json.dumps(patch.config(base)))
        config = AutoConfig.from_pretrained(scratch)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {name: tensor.float() for name, tensor in patch.weights(base)}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def perplexity(model: AutoModelForCausalLM, windows: np.ndarray) -> float:
    total = 0.0
    for row in torch.from_numpy(windows).split(8):
        logits = model(row).logits[:, :-1]
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten(), reduction="sum").item()
    return math.exp(total / windows[:, 1:].size)


def figures(
    store: Store, resolved: ResolvedGrid, text: Path, tokens: int, most: int
) -> Iterator[tuple[str, float, float]]:
    """(label, perplexity on the text, on the dense model's own reasoning) of every variant in the store."""
    base = Checkpoint.open(Path(resolved.variants[0].model_path))
    held_out = load_windows(CalibrationSpec(str(text), most, tokens, windows="packed"), base)
    own = reasoning(store, resolved, tokens, most)
    for variant in resolved.variants:
        if variant.patch_id in store.patch_ids():
            model = model_of(base, store.fetch_patch(variant.patch_id, Path(tempfile.gettempdir(), "perplexity")))
            yield variant.label, perplexity(model, held_out), perplexity(model, own)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", type=Path)
    parser.add_argument("--store")
    parser.add_argument("--text", type=Path, required=True, help="held-out text, as a calibration file")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a window")
    parser.add_argument("--windows", type=int, default=48, help="windows of each kind, at most")
    options = parser.parse_args()
    grid = read_grid(options.grid)
    store = open_store(grid, options.store)
    resolved = resolve_grid(grid, store.traces_digest)
    print(f"| variant | {options.text.name} | the dense model's reasoning |\n|---|---|---|")
    for label, text, own in figures(store, resolved, options.text, options.tokens, options.windows):
        print(f"| {label} | {text:.2f} | {own:.2f} |", flush=True)


if __name__ == "__main__":
    main()
