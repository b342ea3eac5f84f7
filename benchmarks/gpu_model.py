"""A model of Qwen3-8B's shapes with random weights, made where it is needed: 16 GB that nobody has to carry.

`model` streams it to disk, one shard per block, each drawn on the device; `patched` adds patches of it. What is already
there is kept, so that the parts of benchmarks/gpu.sh share one model.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from pruning.files import folder_in_one_piece
from pruning.model.architecture import split_layer_name
from pruning.prune import prune
from pruning.spec import PruneSpec

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
TINY = Path(__file__).parent.parent / "examples" / "tiny" / "model"


@dataclass(frozen=True)
class Size:
    """Shapes of a Qwen3 model; `spread` is the standard deviation of its weights."""

    name: str
    shape: dict[str, int]
    spread: float


QWEN3_8B = Size(
    "qwen3-8b",
    dict(vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
         num_key_value_heads=8, head_dim=128, max_position_embeddings=40960),
    spread=0.02,
)  # fmt: skip
SMALL = Size(
    "small",
    dict(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
         num_key_value_heads=2, head_dim=32, max_position_embeddings=1024),
    spread=0.3,  # sharp enough that greedy decoding is no coin toss
)  # fmt: skip


def model(work: Path, size: Size, device: str) -> Path:
    """The checkpoint folder of `size` below `work`, in bfloat16; made if it is not there."""
    folder = work / size.name
    if folder.exists():
        return folder
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**size.shape, tie_word_embeddings=False, dtype="bfloat16")
    config.architectures = ["Qwen3ForCausalLM"]
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Qwen3ForCausalLM(config).state_dict().items()}
    shards: dict[str, list[str]] = {}
    for name in shapes:
        layer = split_layer_name(name)
        shards.setdefault("model-rest" if layer is None else f"model-{layer[0]:03}", []).append(name)
    generator = torch.Generator(device).manual_seed(0)
    with folder_in_one_piece(folder) as making:
        config.save_pretrained(making)
        for shard, names in shards.items():
            tensors = {name: _random(shapes[name], size.spread, generator).cpu() for name in names}
            save_file(tensors, making / f"{shard}.safetensors")
        where = {name: f"{shard}.safetensors" for shard, names in shards.items() for name in names}
        (making / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        for name in TOKENIZER:
            if (TINY / name).exists():
                shutil.copy(TINY / name, making)
    return folder


def patched(work: Path, size: Size, device: str) -> tuple[Path, Path, Path]:
    """The model, its dense patch and its patch of magnitude 20 %."""
    base = model(work, size, device)
    patches = {
        work / f"{size.name}-dense": PruneSpec("dense"),
        work / f"{size.name}-magnitude-20": PruneSpec("magnitude", sparsity=0.2),
    }
    for folder, spec in patches.items():
        if not folder.exists():
            began = time.monotonic()
            prune(base, spec, folder, payload={}, device=device)
            print(f"{folder.name}: made in {time.monotonic() - began:.1f} s", flush=True)
    dense, pruned = patches
    return base, dense, pruned


def _random(shape: tuple[int, ...], spread: float, generator: torch.Generator) -> torch.Tensor:
    """Normal weights; the scales of norms, which are vectors, are one."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16, device=generator.device).normal_(0, spread, generator=generator)
