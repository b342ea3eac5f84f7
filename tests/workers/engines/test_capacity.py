"""How many sequences the memory has room for, with the shapes of the paper's models on one H100."""

import pytest

from workers.engines.capacity import FEWEST_SEQUENCES, MOST_SEQUENCES, sequences_that_fit, token_bytes

QWEN3_8B = {
    "model_type": "qwen3", "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "head_dim": 128,
}  # fmt: skip
S1_7B = {
    "model_type": "qwen2", "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "hidden_size": 3584,
}  # fmt: skip
H100 = int(0.9 * 85e9) - 3 * 10**9


def test_bytes_of_a_token() -> None:
    assert token_bytes(QWEN3_8B, "bfloat16") == 147_456
    assert token_bytes(S1_7B, "bfloat16") == 57_344
    assert token_bytes(S1_7B, "float32") == 2 * 57_344
    assert token_bytes(S1_7B | {"num_hidden_layers": 14}, "bfloat16") == 57_344 // 2


@pytest.mark.parametrize(
    ("config", "weights", "trace", "sequences"),
    [
        (QWEN3_8B, 16.4e9, 8192, 94),  # 0.387 M tokens of room, 4,096 each
        (QWEN3_8B, 16.4e9, 32768, 23),
        (QWEN3_8B, 16.4e9, 512, MOST_SEQUENCES),
        (S1_7B, 15.2e9, 8192, 248),
        (QWEN3_8B, 80e9, 8192, FEWEST_SEQUENCES),  # vLLM says that it does not fit
    ],
)
def test_sequences_hold_half_of_the_longest_trace_each(
    config: dict[str, int], weights: float, trace: int, sequences: int
) -> None:
    assert sequences_that_fit(H100, int(weights), token_bytes(config, "bfloat16"), trace) == sequences
