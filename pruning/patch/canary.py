"""Log-probabilities of a fixed prompt, by which an engine proves that it computes with the right weights.

The forward runs in float32 with one block resident, on weights as they stream out of base + patch, so it also
proves that the patch on disk decodes. Where the context allows, the prompt is longer than a 128-token block of a
paged KV cache.

Beside it the same blocks compute its beginning in the checkpoint's own dtype. The difference of the two is what
rounding alone does to this variant's log-probabilities, and no engine can be asked to come closer than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch

from pruning.model.architecture import EMBEDDING, FINAL_NORM, HEAD, split_layer_name
from pruning.model.blocks import Blocks
from pruning.model.checkpoint import Checkpoint
from pruning.model.memory import trim_heap
from pruning.patch.manifest import Canary
from pruning.patch.patch import Patch

Weights = Iterable[tuple[str, torch.Tensor]]

CANARY_TOKENS: Final = 192
COMPARED: Final = 32
"""How many of the canary's log-probabilities a swap compares: the first ones. On a CPU each costs a swap 4 ms per 300 M
parameters; 32 positions detect as many single stale matrices as 191."""
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


def make_canary(checkpoint: Checkpoint, config: Mapping[str, Any], weights: Weights, device: str = "cpu") -> Canary:
    """The canary of a variant of `checkpoint`, with its beginning in the dtype in which an engine runs it by default.

    `config` and the names in `weights` are those of the resulting model, see `canary_logprobs`.
    """
    tokens, own = canary_tokens(checkpoint), own_dtype(checkpoint.config)
    forwards = [_Forward(Blocks(config, torch.float32, device), tokens)]
    if own != "float32":
        forwards.append(_Forward(Blocks(config, getattr(torch, own), device), tokens[: COMPARED + 1]))
    exact, *rounded = map(tuple, _run(config, weights, forwards))
    return Canary(tuple(tokens), exact, dict(zip([own], rounded, strict=False)))


def own_dtype(config: Mapping[str, Any]) -> str:
    """The dtype in which a checkpoint is meant to run, by its config.json."""
    return str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")


def rounded_logprobs(base: Checkpoint, patch: Patch, dtype: str, positions: int) -> list[float]:
    """The first `positions` log-probabilities of a patch's canary, computed in `dtype` on the CPU.

    For a patch that does not record them: made by an earlier version, or run in another dtype than its checkpoint's.
    """
    tokens = patch.manifest.canary.token_ids[: positions + 1]
    return canary_logprobs(patch.config(base), patch.weights(base), tokens, dtype=getattr(torch, dtype))


def canary_logprobs(
    config: Mapping[str, Any],
    weights: Weights,
    token_ids: Sequence[int],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[float]:
    """log p(token_i | token_<i) in nats for i = 1.., computed in `dtype`, from a stream of weights in layer order.

    `config` and the names are those of the resulting model, whose blocks are renumbered after a removal. A NaN is
    recorded like any value: it tells that the variant is at fault, not an engine.
    """
    return _run(config, weights, [_Forward(Blocks(config, dtype, device), token_ids)])[0]


def _run(config: Mapping[str, Any], weights: Weights, forwards: Sequence[_Forward]) -> list[list[float]]:
    """The log-probabilities of each forward, from one stream of weights."""
    blocks = len(forwards[0].blocks)
    names = set(forwards[0].blocks.tensor_names(0))
    tied = config.get("tie_word_embeddings", False)
    waiting: dict[int, dict[str, torch.Tensor]] = {}
    outer: dict[str, torch.Tensor] = {}
    done, begun = 0, False
    with torch.no_grad():
        for name, tensor in weights:
            layer = split_layer_name(name)
            if layer is None:
                outer[name] = tensor
            else:
                waiting.setdefault(layer[0], {})[layer[1]] = tensor
            if not begun and EMBEDDING in outer:
                for forward in forwards:
                    forward.begin(outer[EMBEDDING])
                begun = True
                if not tied:
                    del outer[EMBEDDING]
            while begun and done < blocks and waiting.get(done, {}).keys() >= names:
                device = forwards[0].blocks.device
                block = {tail: tensor.to(device) for tail, tensor in waiting.pop(done).items()}
                for forward in forwards:
                    forward.pass_block(done, block)
                trim_heap()
                done += 1
        assert begun
        assert done == blocks, "the stream ended before the last block"
        head = outer[HEAD] if HEAD in outer and not tied else outer[EMBEDDING]
        return [forward.end(outer[FINAL_NORM], head) for forward in forwards]


class _Forward:
    """One forward of some tokens in one dtype, a block at a time."""

    def __init__(self, blocks: Blocks, token_ids: Sequence[int]) -> None:
        self.blocks = blocks
        self._tokens = torch.tensor(token_ids, device=blocks.device)
        self._hidden = torch.empty(0)

    def begin(self, embedding: torch.Tensor) -> None:
        rows = embedding[self._tokens.to(embedding.device)]
        self._hidden = rows.to(self.blocks.device, self.blocks.dtype).unsqueeze(0)

    def pass_block(self, index: int, weights: Mapping[str, torch.Tensor]) -> None:
        with self.blocks.resident(index, weights) as block:
            self._hidden = self.blocks.forward(block, index, self._hidden)

    def end(self, norm: torch.Tensor, head: torch.Tensor) -> list[float]:
        hidden = self.blocks.final_norm(norm)(self._hidden)[0]
        return _logprobs(hidden[:-1], head, self._tokens[1:]).tolist()


def _logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log softmax of hidden @ head.T at the targets, a slice of the vocabulary at a time.

    Logits are rounded to the dtype of `hidden`, as an engine rounds them; all that follows is float32.
    """
    total = torch.full((hidden.shape[0],), -torch.inf, dtype=torch.float32, device=hidden.device)
    chosen = torch.zeros_like(total)
    start = 0
    for rows in head.split(_HEAD_ROWS):
        logits = (hidden @ rows.to(hidden.device).to(hidden.dtype).T).float()
        total = torch.logaddexp(total, logits.logsumexp(dim=1))
        here = (targets >= start) & (targets < start + len(rows))
        chosen[here] = logits[here, targets[here] - start]
        start += len(rows)
    return chosen - total
