"""Log-probabilities of a fixed prompt, by which an engine proves that it computes with the right weights.

The forward runs in float32 with one block resident, on weights as they stream out of base + patch, so it also
proves that the patch on disk decodes. Where the context allows, the prompt is longer than a 128-token block of a
paged KV cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch

from pruning.model.architecture import EMBEDDING, FINAL_NORM, HEAD, split_layer_name
from pruning.model.blocks import Blocks
from pruning.model.checkpoint import Checkpoint
from pruning.model.memory import trim_heap

CANARY_TOKENS: Final = 192
_TEXT: Final = (
    "Question: a train covers 120 km in 1.5 hours, rests 10 minutes, then covers 80 km in 1 hour. "
    "What is its mean speed? Let me think. 120 + 80 = 200 km; 1.5 + 1 = 2.5 hours; "
    "200 / 2.5 = 80 km/h "
    "without the rest, so (3 * 7 - 1) / 4 = 5 is not needed here. Wait, with the rest: "
    "200 / (2.5 + 1/6) = 75 km/h. "
)
_HEAD_ROWS: Final = 16384  # a float32 copy of a 152k-row head would be larger than all else in memory


def canary_tokens(checkpoint: Checkpoint) -> list[int]:
    """The fixed text in the model's own tokens; without a tokenizer, a fixed sequence of token ids."""
    length = min(CANARY_TOKENS, checkpoint.context_length)
    vocabulary = int(checkpoint.config["vocab_size"])
    if not (checkpoint.path / "tokenizer_config.json").is_file():
        return [(7919 * i + 13) % vocabulary for i in range(length)]
    from pruning.model.calibration import load_tokenizer

    tokenizer = load_tokenizer(checkpoint.path)
    once: list[int] = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    if not once:
        raise ValueError(f"{checkpoint.path}: its tokenizer makes no token of plain text; check tokenizer.json.")
    return (once * (length // len(once) + 1))[:length]


def canary_logprobs(
    config: Mapping[str, Any],
    weights: Iterable[tuple[str, torch.Tensor]],
    token_ids: Sequence[int],
    device: str = "cpu",
) -> list[float]:
    """log p(token_i | token_<i) in nats for i = 1.., float32, from a stream of weights in layer order.

    `config` and the names are those of the resulting model, whose blocks are renumbered after a removal. A NaN is
    recorded like any value: it tells that the variant is at fault, not an engine.
    """
    blocks = Blocks(config, torch.float32, device)
    tokens = torch.tensor(token_ids, device=blocks.device)
    waiting: dict[int, dict[str, torch.Tensor]] = {}
    outer: dict[str, torch.Tensor] = {}
    done = 0
    hidden: torch.Tensor | None = None
    with torch.no_grad():
        for name, tensor in weights:
            layer = split_layer_name(name)
            if layer is None:
                outer[name] = tensor
            else:
                waiting.setdefault(layer[0], {})[layer[1]] = tensor
            if hidden is None and EMBEDDING in outer:
                hidden = outer[EMBEDDING][tokens.cpu()].to(blocks.device, torch.float32).unsqueeze(0)
                if not config.get("tie_word_embeddings", False):
                    del outer[EMBEDDING]
            while hidden is not None and waiting.get(done, {}).keys() >= set(_needed(blocks, done)):
                with blocks.resident(done, waiting.pop(done)) as block:
                    hidden = blocks.forward(block, done, hidden)
                trim_heap()
                done += 1
        assert hidden is not None
        assert done == len(blocks), "the stream ended before the last block"
        hidden = blocks.final_norm(outer[FINAL_NORM])(hidden)[0]
        head = outer[HEAD] if HEAD in outer and not config.get("tie_word_embeddings", False) else outer[EMBEDDING]
        return _logprobs(hidden[:-1], head, tokens[1:]).tolist()


def _needed(blocks: Blocks, index: int) -> list[str]:
    return blocks.tensor_names(index) if index < len(blocks) else ["no such block"]


def _logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log softmax of hidden @ head.T at the targets, a slice of the vocabulary at a time."""
    total = torch.full((hidden.shape[0],), -torch.inf, device=hidden.device)
    for rows in head.split(_HEAD_ROWS):
        logits = hidden @ rows.to(hidden.device, torch.float32).T
        total = torch.logaddexp(total, logits.logsumexp(dim=1))
    chosen = head[targets.cpu()].to(hidden.device, torch.float32)
    return (hidden * chosen).sum(dim=1) - total
