"""SmolLM2-135M-Instruct, a real model: made, checked, pruned, and the same in vLLM as in transformers.

Only `make test-real` runs these: they need packages that the project does not (requirements/real.txt).
"""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.perplexity import figures
from eval.prompts import ChatTokenizer
from examples.smollm2.make_model import make_model
from examples.smollm2.make_text import main as make_text
from orchestrator.grid.parse import read_grid
from orchestrator.plan.resolve import resolve_grid
from orchestrator.plan.resolved_grid import ResolvedGrid
from orchestrator.results.cells import read_results
from orchestrator.store.store import Store
from pruning.model.checkpoint import Checkpoint
from pruning.prune import prune
from pruning.spec import PruneSpec
from tests.support import ROOT
from tests.support.asks import ask, complete
from workers.engines.engine import EngineSettings
from workers.engines.vllm_engine import VllmEngine

EXAMPLE = ROOT / "examples" / "smollm2"
pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

QUESTIONS = ("What is the capital of France?", "What is 15 + 85?", "Name three animals that live in the sea.")
PARAMETERS = 134_515_008
"""What Hugging Face says of SmolLM2-135M-Instruct."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    make_model(folder)
    return folder


def test_folder_is_an_ordinary_checkpoint_of_the_model(model):
    checkpoint = Checkpoint.open(model)
    assert checkpoint.tied
    assert sum(header.numel for header in checkpoint.tensors.values()) == PARAMETERS
    assert {header.dtype for header in checkpoint.tensors.values()} == {"BF16"}
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    text = AutoTokenizer.from_pretrained(model).decode(ChatTokenizer.load(model).render("Hello"))
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_folder_that_is_there_is_not_overwritten(model):
    with pytest.raises(ValueError, match="already exists"):
        make_model(model)


def test_it_is_pruned_by_the_command(model, tmp_path):
    command = [sys.executable, "-m", "pruning", model, "--method", "magnitude", "--sparsity", "0.5"]
    done = subprocess.run(
        [*map(str, command), "--patch", str(tmp_path / "patch"), "--json"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sparsity"]["realised"] == pytest.approx(0.5, abs=0.005)


def test_vllm_answers_as_transformers_and_in_english(model, tmp_path):
    """In float32: in bfloat16 the two round differently, and the likeliest token is often a coin toss."""
    prune(model, PruneSpec("dense"), tmp_path / "dense", payload={})
    settings = EngineSettings(dtype="float32", context_length=512, max_sequences=4, cpu_cache_mib=128)
    engine = VllmEngine(model, None, settings)
    engine.load(model, tmp_path / "dense")
    chat = ChatTokenizer.load(model)
    prompts = [chat.render(question) for question in QUESTIONS]
    ours = complete(engine, [ask(prompt, 48, stops=tuple(chat.eos_ids)) for prompt in prompts])
    engine.close()

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for prompt, got in zip(prompts, ours, strict=True):
        generated = reference.generate(torch.tensor([prompt]), max_new_tokens=48, do_sample=False)
        assert generated[0, len(prompt) :].tolist() == list(got)
    assert "Paris" in chat.decode(ours[0])


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Store, ResolvedGrid]:
    """The example's grid, swept by its command into a store of its own."""
    if not (EXAMPLE / "model").exists():
        make_model(EXAMPLE / "model")
    make_text()
    store = tmp_path_factory.mktemp("swept") / "store"
    command = [sys.executable, "-m", "orchestrator.sweep", "examples/smollm2/grid.yaml", "--store", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    opened = Store.open(str(store))
    return opened, resolve_grid(read_grid(EXAMPLE / "grid.yaml"), opened.traces_digest)


@pytest.mark.timeout(2400)
def test_example_is_swept_and_the_dense_model_is_sometimes_right(swept, monkeypatch):
    monkeypatch.chdir(ROOT)
    results = read_results(*swept)
    assert results.complete
    assert len(results.cells) == 15 * 3
    dense = [cell.metrics.accuracy for cell in results.cells if cell.variant.dense]
    assert all(0.2 <= accuracy <= 0.6 for accuracy in dense)


def test_perplexity_has_the_known_order(swept):
    """Dense, 20 %, 50 %; at 50 %, SparseGPT before Wanda before magnitude, when calibrated on text."""
    figure = {label: text for label, text, _ in figures(*swept, EXAMPLE / "held-out.jsonl", 256, 24)}
    for method in ("wanda", "sparsegpt"):
        low, high = (figure[f"{method} + uniform at {sparsity}, text"] for sparsity in (0.2, 0.5))
        assert figure["dense"] < low < high
    assert figure["dense"] < figure["magnitude + uniform at 0.2"] < figure["magnitude + uniform at 0.5"]
    half = [figure[f"{name} + uniform at 0.5{data}"] for name, data in (("sparsegpt", ", text"), ("wanda", ", text"))]
    assert half == sorted(half)
    assert half[-1] < figure["magnitude + uniform at 0.5"]
