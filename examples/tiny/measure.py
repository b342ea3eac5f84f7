"""Measure the tiny reasoner with transformers' own generation: accuracy by thinking limit, dense and damaged.

    OMP_NUM_THREADS=1 python -m examples.tiny.measure

prints the table in README.md. This is a second, plain account of budget forcing and of pruning. It shares
no code with ``eval/`` and ``pruning/``, so that the numbers it gives can be held against theirs.

A thinking limit counts every token generated before the answer, ``<think>`` and ``</think>`` among them. A
trace that closes within the limit stands as it is; a longer one is cut to one token less and ``</think>``
is put after it.
"""

import argparse
import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from examples.tiny.chains import BENCHMARKS, HERE

LIMITS = (8, 16, 32, 64, 128)
TRACE_TOKENS = 160
ANSWER_TOKENS = 16
BOXED = re.compile(r"\\boxed\{(\d)\}")


@dataclass(frozen=True)
class Reasoner:
    """A model with its tokenizer, ready to answer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(folder: Path = HERE / "model") -> Reasoner:
    """The checkpoint in the precision it was saved in."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    return Reasoner(model, AutoTokenizer.from_pretrained(folder))


def read_jsonl(path: Path) -> list[dict[str, str]]:
    """One object per line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def greedy(reasoner: Reasoner, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """Continue every prompt greedily; each continuation ends before ``<|end|>`` or after ``new_tokens``."""
    pad, end = reasoner.tokenizer.pad_token_id, reasoner.tokenizer.eos_token_id
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    attended = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        output = reasoner.model.generate(
            input_ids=ids, attention_mask=attended, max_new_tokens=new_tokens, do_sample=False
        )
    rows = output[:, longest:].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


def prompt_ids(reasoner: Reasoner, problem: str) -> list[int]:
    """The problem as one user turn, through the chat template, with the assistant's turn opened."""
    turns = [{"role": "user", "content": problem}]
    text = reasoner.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return reasoner.tokenizer.encode(text, add_special_tokens=False)


def boxed(text: str) -> str | None:
    """The last boxed digit, or None where there is none."""
    found = BOXED.findall(text)
    return found[-1] if found else None


def unlimited_answers(reasoner: Reasoner, problems: Sequence[str]) -> list[str | None]:
    """What the model answers when nobody cuts its thinking."""
    traces = greedy(reasoner, [prompt_ids(reasoner, problem) for problem in problems], TRACE_TOKENS)
    return [boxed(reasoner.tokenizer.decode(trace)) for trace in traces]


def limited_answers(
    reasoner: Reasoner, problems: Sequence[str], limits: Sequence[int] = LIMITS
) -> dict[int, list[str | None]]:
    """Limit -> the answer to each problem, every limit a cut of one and the same trace."""
    close = reasoner.tokenizer.convert_tokens_to_ids("</think>")
    prompts = [prompt_ids(reasoner, problem) for problem in problems]
    traces = greedy(reasoner, prompts, max(limits))
    answers: dict[int, list[str | None]] = {}
    for limit in limits:
        asked = []
        for prompt, trace in zip(prompts, traces, strict=True):
            thinking = trace[: trace.index(close) + 1] if close in trace else [*trace, close]
            if len(thinking) > limit:
                thinking = [*thinking[: limit - 1], close]
            asked.append([*prompt, *thinking])
        replies = greedy(reasoner, asked, ANSWER_TOKENS)
        answers[limit] = [boxed(reasoner.tokenizer.decode(reply)) for reply in replies]
    return answers


def accuracy(answers: Sequence[str | None], rows: Sequence[dict[str, str]]) -> float:
    """The share of rows whose answer was given."""
    return sum(answer == row["answer"] for answer, row in zip(answers, rows, strict=True)) / len(rows)


def magnitude_pruned(reasoner: Reasoner, sparsity: float) -> Reasoner:
    """A copy in which each linear layer of each block has lost that share of its weights, the smallest."""
    model = copy.deepcopy(reasoner.model)
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            weight = module.weight.data
            drop = weight.abs().flatten().argsort(stable=True)[: int(sparsity * weight.numel())]
            weight.view(-1)[drop] = 0
    return Reasoner(model, reasoner.tokenizer)


def without_block(reasoner: Reasoner, index: int) -> Reasoner:
    """A copy without that decoder block; the blocks after it move down, their cache slots with them."""
    model = copy.deepcopy(reasoner.model)
    del model.model.layers[index]
    for position, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = position
    model.config.num_hidden_layers = len(model.model.layers)
    del model.config.layer_types[index]
    return Reasoner(model, reasoner.tokenizer)


def variants(reasoner: Reasoner) -> dict[str, Callable[[], Reasoner]]:
    """Name -> how to make it, for every row of the table."""
    made: dict[str, Callable[[], Reasoner]] = {"dense": lambda: reasoner}
    for percent in (10, 20, 30, 40, 50):
        made[f"magnitude {percent} %"] = lambda share=percent / 100: magnitude_pruned(reasoner, share)
    for index in range(len(reasoner.model.model.layers)):
        made[f"without block {index}"] = lambda index=index: without_block(reasoner, index)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Accuracy by thinking limit, dense and damaged.")
    parser.add_argument("--model", type=Path, default=HERE / "model", help="checkpoint folder (default: model)")
    folder = parser.parse_args(argv).model
    torch.set_num_threads(1)
    reasoner = load(folder)
    names = [spec.name for spec in BENCHMARKS]
    parts = {name: read_jsonl(HERE / f"chain-{name}.jsonl") for name in names}
    rows = [row for name in names for row in parts[name]]
    columns = [*map(str, LIMITS), "unlimited", *(f"{name}, unlimited" for name in names)]
    print("| variant | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    problems = [row["problem"] for row in rows]
    for name, make in variants(reasoner).items():
        variant = make()
        by_limit = [accuracy(found, rows) for found in limited_answers(variant, problems).values()]
        free = dict(zip((row["id"] for row in rows), unlimited_answers(variant, problems), strict=True))
        by_part = [accuracy([free[row["id"]] for row in parts[part]], parts[part]) for part in names]
        figures = [*by_limit, accuracy(list(free.values()), rows), *by_part]
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
