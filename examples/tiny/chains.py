"""The tiny reasoner's task: chains of one-digit arithmetic, worked from left to right modulo 10.

A problem is text such as ``7+5*3-2?``. There is no precedence: the running digit starts at the first
operand and each operator acts on it in turn, modulo 10. Thinking writes one step per operation,
``7+5=2;2*3=6;6-2=4;``, and the answer is the last running digit in a box.

The multipliers are 3, 7 and 9 only. They have inverses modulo 10, so every operation permutes the ten
digits: a chain's answer is uniform whatever part of the chain one has looked at. A multiplier such as 0 or
5 would let a model answer without the steps before it, and accuracy at a small thinking limit would then
measure luck with such problems.

This file imports nothing but the standard library, and draws only through ``Random.random()``, the one
method whose sequence Python promises to keep: the data files come out byte for byte the same on every
machine.

    python -m examples.tiny.chains            write the benchmark and calibration files beside this script
    python -m examples.tiny.chains --out DIR  write them elsewhere
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent

MAX_OPERATIONS = 16
MULTIPLIERS = (3, 7, 9)
ALL_OPERATORS = "+-*"

BENCHMARK_SEED = 20260
CALIBRATION_SEED = 20261
PROBLEMS_PER_BENCHMARK = 100
CALIBRATION_DOCUMENTS = 160
CALIBRATION_MIN_TOKENS = 256


@dataclass(frozen=True)
class Chain:
    """A starting digit and the operations on it: ``Chain(7, (("+", 5), ("*", 3)))`` is ``7+5*3?``."""

    start: int
    operations: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class BenchmarkSpec:
    """One benchmark file: its chains' lengths spread evenly over ``shortest..longest`` operations."""

    name: str
    shortest: int
    longest: int
    operators: str


BENCHMARKS = (
    BenchmarkSpec("mixed", 1, MAX_OPERATIONS, ALL_OPERATORS),
    BenchmarkSpec("short", 1, 4, ALL_OPERATORS),
    BenchmarkSpec("long", 9, MAX_OPERATIONS, ALL_OPERATORS),
    BenchmarkSpec("plus", 1, MAX_OPERATIONS, "+"),
)


def step(digit: int, operator: str, operand: int) -> int:
    """One operation on the running digit, modulo 10."""
    match operator:
        case "+":
            return (digit + operand) % 10
        case "-":
            return (digit - operand) % 10
        case "*":
            return (digit * operand) % 10
    raise ValueError(f"operator {operator!r} is not one of {ALL_OPERATORS!r}")


def problem_text(chain: Chain) -> str:
    """The problem as the user writes it."""
    return f"{chain.start}" + "".join(f"{operator}{operand}" for operator, operand in chain.operations) + "?"


def thinking_text(chain: Chain) -> str:
    """The steps between ``<think>`` and ``</think>``: six characters per operation."""
    digit, steps = chain.start, []
    for operator, operand in chain.operations:
        result = step(digit, operator, operand)
        steps.append(f"{digit}{operator}{operand}={result};")
        digit = result
    return "".join(steps)


def answer_of(chain: Chain) -> int:
    """The running digit after the last operation."""
    digit = chain.start
    for operator, operand in chain.operations:
        digit = step(digit, operator, operand)
    return digit


def answer_text(chain: Chain) -> str:
    """What the assistant writes after ``</think>``."""
    return rf"\boxed{{{answer_of(chain)}}}"


def pick(rng: Random, count: int) -> int:
    """A uniform integer in ``0..count-1`` by ``random()`` alone, so that no Python version draws another."""
    return int(rng.random() * count)


def sample_chain(rng: Random, operations: int, operators: str = ALL_OPERATORS) -> Chain:
    """A chain of that many operations, each operator and each operand it takes equally likely."""
    start, drawn = pick(rng, 10), []
    for _ in range(operations):
        operator = operators[pick(rng, len(operators))]
        operand = MULTIPLIERS[pick(rng, len(MULTIPLIERS))] if operator == "*" else pick(rng, 10)
        drawn.append((operator, operand))
    return Chain(start, tuple(drawn))


def sample_training_chain(rng: Random, held_out: frozenset[str]) -> Chain:
    """A training chain: 1 to 16 operations, one in eight of additions only, never a held-out problem."""
    while True:
        operations = 1 + pick(rng, MAX_OPERATIONS)
        chain = sample_chain(rng, operations, "+" if rng.random() < 0.125 else ALL_OPERATORS)
        if problem_text(chain) not in held_out:
            return chain


def benchmark_rows(spec: BenchmarkSpec, rng: Random, taken: set[str]) -> list[dict[str, str]]:
    """One benchmark's rows, ten problems per answer, none in ``taken``, to which they are added.

    The rows are shuffled before they are numbered, so that the first n problems of a file are as mixed as
    the file.
    """
    spread = spec.longest - spec.shortest + 1
    chains: list[Chain] = []
    for index in range(PROBLEMS_PER_BENCHMARK):
        operations = spec.shortest + index * spread // PROBLEMS_PER_BENCHMARK
        while True:
            chain = sample_chain(rng, operations, spec.operators)
            text = problem_text(chain)
            if answer_of(chain) == index % 10 and text not in taken:
                break
        taken.add(text)
        chains.append(chain)
    for last in range(len(chains) - 1, 0, -1):
        other = pick(rng, last + 1)
        chains[last], chains[other] = chains[other], chains[last]
    return [
        {"id": f"{spec.name}-{index:03d}", "problem": problem_text(chain), "answer": str(answer_of(chain))}
        for index, chain in enumerate(chains)
    ]


def all_benchmark_rows() -> dict[str, list[dict[str, str]]]:
    """File name -> rows, for every benchmark; no problem stands in two of them."""
    rng, taken = Random(BENCHMARK_SEED), set[str]()
    return {f"chain-{spec.name}.jsonl": benchmark_rows(spec, rng, taken) for spec in BENCHMARKS}


def held_out_problems() -> frozenset[str]:
    """The text of every benchmark problem: what training and calibration must not hold."""
    return frozenset(row["problem"] for rows in all_benchmark_rows().values() for row in rows)


def transcript(chain: Chain) -> str:
    """One finished conversation, as the chat template renders it (a test compares the two)."""
    thinking, answer = thinking_text(chain), answer_text(chain)
    return f"<|user|>{problem_text(chain)}<|end|><|assistant|><think>{thinking}</think>{answer}<|end|>"


def transcript_tokens(chain: Chain) -> int:
    """Tokens in ``transcript(chain)``: one per character, and one for each of its six markers."""
    return len(problem_text(chain)) + len(thinking_text(chain)) + len(answer_text(chain)) + 6


def calibration_rows() -> list[dict[str, str]]:
    """Documents of several transcripts, each long enough to cut a window of 128 tokens from."""
    rng, held_out, rows = Random(CALIBRATION_SEED), held_out_problems(), []
    for _ in range(CALIBRATION_DOCUMENTS):
        texts, tokens = [], 0
        while tokens < CALIBRATION_MIN_TOKENS:
            chain = sample_training_chain(rng, held_out)
            texts.append(transcript(chain))
            tokens += transcript_tokens(chain)
        rows.append({"text": "".join(texts)})
    return rows


def write_jsonl(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """One JSON object per line, Unix line ends on every system."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")


def write_data(folder: Path) -> None:
    """Write the four benchmark files and the calibration file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in all_benchmark_rows().items():
        write_jsonl(folder / name, rows)
    write_jsonl(folder / "calibration.jsonl", calibration_rows())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the tiny reasoner's benchmark and calibration files.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this script)")
    write_data(parser.parse_args(argv).out)


if __name__ == "__main__":
    main()
