"""Train the tiny reasoner: a Qwen3-architecture model of 0.26 M parameters that thinks step by step.

    OMP_NUM_THREADS=1 python -m examples.tiny.train

writes an ordinary Hugging Face folder, ``examples/tiny/model``. Problems are drawn afresh for every batch
(see ``chains.py``), and none of them stands in a benchmark file. Loss is taken on the assistant's tokens
alone.

About a third of the examples have their thinking cut at a random token and go straight on to ``</think>``
and the true answer. A budget forcer does exactly that to the trained model, so a forced answer must be
something it has seen, and seen with the right target: what the steps so far allow. The ``</think>`` after a
cut carries no loss, since a cut comes from outside; a model that learnt to predict it would learn to stop
early.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from examples.tiny.chains import (
    HERE,
    answer_text,
    held_out_problems,
    pick,
    problem_text,
    sample_training_chain,
    thinking_text,
)

CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
CONTROL_TOKENS = ("<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>")
THINK_TOKENS = ("<think>", "</think>")
CONTEXT = 512
IGNORED = -100

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        <|user|>{{ message.content }}<|end|>
    {%- elif message.role == 'assistant' -%}
        <|assistant|>{{ message.content }}<|end|>
    {%- else -%}
        {{- raise_exception("The tiny reasoner was trained on user and assistant turns only; drop the '"
                            ~ message.role ~ "' turn or put its text into the user turn.") -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|assistant|>
{%- endif -%}
"""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the machine's rounding."""

    seed: int = 0
    width: int = 64
    steps: int = 2000
    batch: int = 64
    peak_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.02
    initial_spread: float = 0.1
    cut_share: float = 0.3


@dataclass(frozen=True)
class Example:
    """Token ids of one conversation and, for each, whether the loss counts it."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character or newline, and the markers; decoding is exact.

    ``<think>`` and ``</think>`` are added but not special, as in Qwen3: they survive ``skip_special_tokens``.
    """
    vocabulary = {token: index for index, token in enumerate([*CHARACTERS, *CONTROL_TOKENS, *THINK_TOKENS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<|unk|>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in THINK_TOKENS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_model(tokenizer: PreTrainedTokenizerFast, width: int, initial_spread: float) -> Qwen3ForCausalLM:
    """Four decoder layers, untied, so that pruning a block can be told from pruning the vocabulary.

    Width 64 and the wide start are chosen for what pruning shows. At width 128 from Hugging Face's 0.02 the
    task leaves two of four blocks idle: half the weights, or either block, can go and nothing is lost.
    """
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
        initializer_range=initial_spread,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def make_example(
    rng: Random, tokenizer: PreTrainedTokenizerFast, held_out: frozenset[str], cut_share: float
) -> Example:
    """One conversation; with probability ``cut_share`` its thinking stops at a random token."""
    chain = sample_training_chain(rng, held_out)
    prompt = tokenizer.encode(f"<|user|>{problem_text(chain)}<|end|><|assistant|>")
    thinking = tokenizer.encode(f"<think>{thinking_text(chain)}")
    close = tokenizer.encode("</think>")
    answer = tokenizer.encode(f"{answer_text(chain)}<|end|>")
    cut = rng.random() < cut_share
    if cut:
        thinking = thinking[: 1 + pick(rng, len(thinking) - 1)]
    ids = (*prompt, *thinking, *close, *answer)
    counted = (False,) * len(prompt) + (True,) * len(thinking) + (not cut,) + (True,) * len(answer)
    return Example(ids, counted)


def collate(examples: Sequence[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and labels, int64 [examples, longest], padded on the right, where a causal model never looks."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), longest), pad)
    labels = torch.full((len(examples), longest), IGNORED)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        labels[row, :length] = torch.where(torch.tensor(example.counted), ids[row, :length], IGNORED)
    return ids, labels


def rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < recipe.warmup:
        return recipe.peak_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.peak_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def batch_loss(model: Qwen3ForCausalLM, examples: Sequence[Example], pad: int, pieces: int = 4) -> float:
    """Mean loss per counted token, its gradient left in the parameters.

    The batch runs in pieces of like length, so that a chain of one operation is not padded to a chain of
    sixteen.
    """
    ordered = sorted(examples, key=lambda example: len(example.ids))
    total = sum(sum(example.counted) for example in examples)
    size = math.ceil(len(ordered) / pieces)
    loss_sum = 0.0
    for first in range(0, len(ordered), size):
        ids, labels = collate(ordered[first : first + size], pad)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        (loss / total).backward()
        loss_sum += loss.item()
    return loss_sum / total


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint in bfloat16, the precision it is served in, each file moved into place whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as temporary:
        served = Qwen3ForCausalLM(model.config).to(torch.bfloat16)
        served.load_state_dict(model.state_dict())
        served.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
        served.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for path in Path(temporary).iterdir():
            path.chmod(0o644)  # safetensors writes for its owner alone
            os.replace(path, folder / path.name)


def train(recipe: Recipe, folder: Path, log_every: int, save_every: int) -> Qwen3ForCausalLM:
    """Train by the recipe, saving now and then and at the end."""
    torch.manual_seed(recipe.seed)
    rng, held_out = Random(recipe.seed), held_out_problems()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, recipe.width, recipe.initial_spread)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters; {recipe}", flush=True)
    started, recent = time.monotonic(), []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        examples = [make_example(rng, tokenizer, held_out, recipe.cut_share) for _ in range(recipe.batch)]
        recent.append(batch_loss(model, examples, tokenizer.pad_token_id))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % log_every == 0 or done == recipe.steps:
            elapsed = time.monotonic() - started
            print(f"step {done:5d}  loss {sum(recent) / len(recent):.4f}  {elapsed:6.0f} s", flush=True)
            recent = []
        if done % save_every == 0 or done == recipe.steps:
            save(model, tokenizer, folder)
    return model


def main(argv: Sequence[str] | None = None) -> None:
    defaults = Recipe()
    parser = argparse.ArgumentParser(description="Train the tiny reasoner on the CPU, from a seed.")
    parser.add_argument("--out", type=Path, default=HERE / "model", help="checkpoint folder (default: model)")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--width", type=int, default=defaults.width)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--peak-rate", type=float, default=defaults.peak_rate)
    parser.add_argument("--warmup", type=int, default=defaults.warmup)
    parser.add_argument("--weight-decay", type=float, default=defaults.weight_decay)
    parser.add_argument("--initial-spread", type=float, default=defaults.initial_spread)
    parser.add_argument("--cut-share", type=float, default=defaults.cut_share)
    parser.add_argument("--log-every", type=int, default=25)
    parser.add_argument("--save-every", type=int, default=500)
    options = vars(parser.parse_args(argv))
    folder, log_every, save_every = options.pop("out"), options.pop("log_every"), options.pop("save_every")
    torch.set_num_threads(1)
    train(Recipe(**options), folder, log_every, save_every)


if __name__ == "__main__":
    main()
