"""Checkpoints, patches and one real vLLM engine at a time, shared by the engine's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from pruning.prune import prune
from pruning.spec import CalibrationSpec, PruneSpec
from workers.engines.engine import EngineSettings
from workers.engines.vllm_engine import VllmEngine

SETTINGS = EngineSettings(dtype="bfloat16", context_length=512, max_sequences=16, cpu_cache_mib=64)
MakePatch = Callable[..., Path]


@pytest.fixture(scope="session")
def make_patch(tmp_path_factory: pytest.TempPathFactory) -> MakePatch:
    """Prune a checkpoint; the same request gives the same folder."""
    made: dict[tuple[Path, PruneSpec], Path] = {}
    folder = tmp_path_factory.mktemp("patches")

    def make(base: Path, method: str = "dense", **axes: object) -> Path:
        if method == "wanda":
            calibration = base.parent / "calibration.jsonl"
            axes["calibration"] = CalibrationSpec(str(calibration), samples=8, tokens=64)
        spec = PruneSpec(method, **axes)
        if (base, spec) not in made:
            target = folder / f"{len(made)}-{method}"
            prune(base, spec, target, payload={})
            made[(base, spec)] = target
        return made[(base, spec)]

    return make


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A random checkpoint whose output head is its embedding, with the tiny reasoner's tokenizer."""
    return random_checkpoint(tmp_path_factory.mktemp("tied") / "model", tiny, seed=1, tie_word_embeddings=True)


def random_checkpoint(folder: Path, tokenizer_of: Path, seed: int, **changes: object) -> Path:
    """A Qwen3 checkpoint with random weights, sharp enough that greedy decoding is no coin toss."""
    torch.manual_seed(seed)
    shape = dict(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    model = Qwen3ForCausalLM(Qwen3Config(**(shape | changes))).to(torch.bfloat16)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (tokenizer_of / name).exists():
            (folder / name).write_bytes((tokenizer_of / name).read_bytes())
    return folder


class OneEngine:
    """Hands out engines one at a time: a process can hold only one, but starts a second in a second."""

    def __init__(self) -> None:
        self._key: tuple[Path, int | None] | None = None
        self._engine: VllmEngine | None = None

    def __call__(self, base: Path, layers: int | None = None, fresh: bool = False) -> VllmEngine:
        if fresh or self._engine is None or self._key != (base, layers):
            self.close()
            self._engine, self._key = VllmEngine(base, layers, SETTINGS), (base, layers)
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = self._key = None


@pytest.fixture(scope="session")
def engine() -> Iterator[OneEngine]:
    one = OneEngine()
    yield one
    one.close()
