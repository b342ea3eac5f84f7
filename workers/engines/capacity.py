"""How many sequences an engine decodes at once, by the memory that is left for its key-value cache. Pure.

More sequences share one read of the weights, so more are faster, until the cache is full: then vLLM preempts sequences
and computes their tokens again.
"""

from collections.abc import Mapping
from typing import Any

MOST_SEQUENCES = 256
"""Beyond it a step of an 8 B model on one H100 is no longer bound by reading the weights."""

FEWEST_SEQUENCES = 16
CPU_SEQUENCES = 64

WORKING_BYTES = 3 * 10**9
"""Of a GPU, for activations, graphs and libraries; vLLM measures its own when it starts."""

DTYPE_BYTES = {"float32": 4}
"""Bytes of a value; 2 in every other dtype."""


def token_bytes(config: Mapping[str, Any], dtype: str) -> int:
    """Bytes of the key-value cache per token, over all ranks; `config` is the engine's config.json."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head = config.get("head_dim") or (128 if config.get("model_type") == "qwen3" else width // heads)
    kept = config.get("num_key_value_heads") or heads
    return int(2 * config["num_hidden_layers"] * kept * head * DTYPE_BYTES.get(dtype, 2))


def sequences_that_fit(memory: int, weights: int, per_token: int, trace_tokens: int) -> int:
    """The number of sequences for which `memory` bytes of all the engine's GPUs have room.

    `weights`: bytes of the weights; `per_token`: of `token_bytes`; `trace_tokens`: the longest trace that is asked for.
    Traces are at every stage and most end early, so half of the longest is counted for each.
    """
    tokens = max(0, memory - weights) // per_token
    return max(FEWEST_SEQUENCES, min(MOST_SEQUENCES, tokens // max(1, trace_tokens // 2)))
