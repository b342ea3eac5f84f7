"""Asks for a real engine, and their tokens: what its tests have in common."""

from pathlib import Path

from eval.draws import Ask, Completion
from eval.prompts import ChatTokenizer
from eval.spec import SamplingSpec
from workers.engines.vllm_engine import VllmEngine

GREEDY = SamplingSpec(temperature=0.0)


def ask(prompt: tuple[int, ...], tokens: int, name: str = "trace", stops: tuple[int, ...] = (), seed: int = 0) -> Ask:
    return Ask(name, prompt, tokens, stops, (), seed)


def complete(engine: VllmEngine, asks: list[Ask], sampling: SamplingSpec = GREEDY) -> list[tuple[int, ...]]:
    """The token ids of each ask, in order."""
    for number, one in enumerate(asks):
        engine.submit(str(number), one, sampling)
    got: dict[str, tuple[int, ...]] = {}
    while len(got) < len(asks):
        for finished in engine.step():
            assert isinstance(finished.completion, Completion)
            got[finished.name] = finished.completion.token_ids
    return [got[str(number)] for number in range(len(asks))]


def cache_tokens(engine: VllmEngine) -> int:
    """How many tokens the key-value cache holds."""
    config = engine._engine.vllm_config.cache_config
    return config.num_gpu_blocks * config.block_size


def long_prompts(base: Path, count: int = 6, length: int = 200) -> list[Ask]:
    """Prompts longer than a block of the key-value cache: a stale cache shows on nothing shorter."""
    tokenizer = ChatTokenizer.load(base)
    text = "".join(chr(33 + (7 * i) % 90) for i in range(length + count))
    return [ask(tuple(tokenizer.encode(text[i : i + length])), 24) for i in range(count)]
