"""Random tiny checkpoints on disk: four architectures, tied and untied, sharded, windowed, odd widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pruning.spec import CalibrationSpec

SHAPES = {
    "qwen2": {
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 2,
        "max_position_embeddings": 192,
    },
    "qwen3": {"head_dim": 20, "max_position_embeddings": 192},
    "llama": {"intermediate_size": 77, "vocab_size": 101, "max_position_embeddings": 64},
    "mistral": {"sliding_window": 7, "max_position_embeddings": 192},
}
SHARDED = "qwen3"


def make_checkpoint(folder: Path, kind: str, dtype: torch.dtype = torch.float32, **settings: object) -> Path:
    """A random checkpoint whose norms and biases are not trivial, as save_pretrained writes it."""
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": 97,
            "hidden_size": 48,
            "intermediate_size": 76,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.15,
            "tie_word_embeddings": False,
            **SHAPES[kind],
            **settings,
        },
    )
    torch.manual_seed(sum(kind.encode()))
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    shard = "60KB" if kind == SHARDED else "5GB"
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: make_checkpoint(root / kind, kind) for kind in SHAPES}


@pytest.fixture(scope="session")
def windows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("windows") / "tokens.npy"
    np.save(file, np.random.default_rng(0).integers(0, 97, (6, 24)))
    return file


@pytest.fixture(scope="session")
def calibration(windows_file: Path) -> CalibrationSpec:
    return CalibrationSpec(str(windows_file))
