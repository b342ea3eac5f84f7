"""The real engine: what it answers after a swap, what it refuses, and what its proof catches."""

import gc
import math
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm import EngineArgs, LLMEngine, SamplingParams, TokensPrompt

from eval.draws import Ask, Completion, DrawJob
from eval.prompts import ChatTokenizer
from eval.spec import SamplingSpec
from orchestrator.store import Store
from pruning.manifest import encode_manifest, read_manifest
from pruning.patch import export
from tests.orchestrator.builders import make_context, make_item
from tests.workers.conftest import SETTINGS, MakePatch, OneEngine, random_checkpoint
from workers.engine import EngineFault, VariantFault
from workers.eval_worker import EvalWorker
from workers.evaluation import Pace
from workers.inbox import Inbox
from workers.messages import Committed, Ended, Heartbeat, Hungry, Shard, Swapped, Troubled
from workers.vllm_engine import VllmEngine

GREEDY = SamplingSpec(temperature=0.0)
UNREADABLE = "/proc/self/mem"
"""Reading it from its beginning gives EIO, as a mount does whose server is gone."""


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


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_swap_answers_as_a_fresh_engine_on_the_exported_checkpoint(
    method: str, tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    patch = make_patch(tiny, method, sparsity=0.5)
    asks = long_prompts(tiny)
    swapped = engine(tiny)
    swapped.load(tiny, make_patch(tiny))
    dense = complete(swapped, asks)
    swapped.load(tiny, patch)
    pruned = complete(swapped, asks)
    swapped.load(tiny, make_patch(tiny))
    assert complete(swapped, asks) == dense, "back on the dense weights, nothing of the pruned variant is left"

    export(tiny, patch, tmp_path / "exported")
    fresh = engine(tmp_path / "exported", fresh=True)
    fresh.load(tmp_path / "exported", make_patch(tmp_path / "exported"))
    assert complete(fresh, asks) == pruned
    assert pruned != dense, "the variants must differ, or this test shows nothing"


def test_swap_of_tied_embeddings_answers_as_a_fresh_engine(
    tied: Path, tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    other = random_checkpoint(tmp_path / "other", tiny, seed=2, tie_word_embeddings=True)
    asks = long_prompts(tied)
    one = engine(tied)
    one.load(tied, make_patch(tied))
    first = complete(one, asks)
    one.load(other, make_patch(other))
    swapped = complete(one, asks)
    fresh = engine(other, fresh=True)
    fresh.load(other, make_patch(other))
    assert complete(fresh, asks) == swapped
    assert swapped != first


def test_engine_of_fewer_blocks_answers_as_the_exported_checkpoint(
    tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    patch = make_patch(tiny, "shortgpt", blocks=1, calibration=_calibration(tiny))
    asks = long_prompts(tiny, count=3)
    shorter = engine(tiny, patch)
    shorter.load(tiny, patch)
    got = complete(shorter, asks)
    export(tiny, patch, tmp_path / "exported")
    fresh = engine(tmp_path / "exported", fresh=True)
    fresh.load(tmp_path / "exported", make_patch(tmp_path / "exported"))
    assert complete(fresh, asks) == got


@pytest.mark.parametrize(("method", "axes"), [("wanda", {"sparsity": 0.5}), ("shortgpt", {"blocks": 1})])
def test_exported_checkpoint_loads_in_vllm_unchanged_and_answers_alike(
    method: str, axes: dict[str, object], tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    """vLLM's own loader on the exported folder, none of our swap: what a user of the export gets."""
    if method == "shortgpt":
        axes = axes | {"calibration": _calibration(tiny)}
    patch = make_patch(tiny, method, **axes)
    asks = long_prompts(tiny, count=3)
    ours = engine(tiny, patch if method == "shortgpt" else None)
    ours.load(tiny, patch)
    expected = complete(ours, asks)
    engine.close()
    export(tiny, patch, tmp_path / "exported")
    plain = LLMEngine.from_engine_args(
        EngineArgs(
            model=str(tmp_path / "exported"), enforce_eager=True, kv_cache_memory_bytes=64 << 20, max_model_len=512,
            enable_chunked_prefill=False, max_num_batched_tokens=4096, generation_config="vllm", dtype="bfloat16",
        )
    )  # fmt: skip
    for number, one in enumerate(asks):
        params = SamplingParams(temperature=0.0, max_tokens=one.max_tokens, ignore_eos=True)
        plain.add_request(str(number), TokensPrompt(prompt_token_ids=list(one.prompt_ids)), params)
    got: dict[str, tuple[int, ...]] = {}
    while plain.has_unfinished_requests():
        got |= {done.request_id: tuple(done.outputs[0].token_ids) for done in plain.step() if done.finished}
    plain.engine_core.shutdown()
    assert [got[str(number)] for number in range(len(asks))] == expected


def test_sampled_tokens_repeat_with_their_seed_and_differ_without(
    tied: Path, engine: OneEngine, make_patch: MakePatch
) -> None:
    one = engine(tied)  # random weights: the reasoner is too sure of itself for seeds to show
    one.load(tied, make_patch(tied))
    sampling = SamplingSpec(temperature=2.0)
    prompt = long_prompts(tied, 1)[0].prompt_ids
    asks = [ask(prompt, 24, seed=seed) for seed in (7, 11, 7)]
    seven, eleven, again = complete(one, asks, sampling)
    assert seven == again
    assert seven != eleven


def test_ask_beyond_the_context_is_refused_before_vllm_cuts_it_short(
    tiny: Path, engine: OneEngine, make_patch: MakePatch
) -> None:
    one = engine(tiny)
    one.load(tiny, make_patch(tiny))
    with pytest.raises(ValueError, match="exceed the engine's context of 512"):
        one.submit("0", ask((5,) * 500, 13), GREEDY)


def test_cancelled_ask_never_returns(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one = engine(tiny)
    one.load(tiny, make_patch(tiny))
    prompts = long_prompts(tiny, 2)
    one.submit("gone", prompts[0], GREEDY)
    one.submit("kept", prompts[1], GREEDY)
    one.cancel(["gone"])
    names = []
    while "kept" not in names:
        names += [finished.name for finished in one.step()]
    assert names == ["kept"]


def test_forced_answer_finds_its_trace_in_the_prefix_cache(
    tiny: Path, engine: OneEngine, make_patch: MakePatch
) -> None:
    one = engine(tiny)
    one.load(tiny, make_patch(tiny))
    prompt = long_prompts(tiny, 1, length=300)[0].prompt_ids
    complete(one, [ask(prompt, 4)])
    one.submit("forced", ask((*prompt, 5, 6), 4), GREEDY)
    finished = [done for _ in range(20) for done in one.step()]
    assert finished[0].cached_tokens >= 256


# --- sabotage: what the proof must catch ------------------------------------------------------------------------------


def test_swap_while_a_request_is_in_flight_is_refused(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one = engine(tiny)
    one.load(tiny, make_patch(tiny))
    one.submit("0", long_prompts(tiny, 1)[0], GREEDY)
    with pytest.raises(EngineFault, match="in flight"):
        one.load(tiny, make_patch(tiny, "magnitude", sparsity=0.5))
    one.cancel(["0"])
    one.step()


def test_stale_prefix_cache_is_caught(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one = engine(tiny, fresh=True)
    one.load(tiny, make_patch(tiny))
    one._engine.reset_prefix_cache = lambda: True
    with pytest.raises(EngineFault, match="canary tokens were still cached"):
        one.load(tiny, make_patch(tiny, "magnitude", sparsity=0.5))
    engine.close()


def test_tensor_left_unswapped_is_caught(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one = engine(tiny, fresh=True)
    one.load(tiny, make_patch(tiny))
    model = one._engine.apply_model(lambda model: model)[0]
    name, load = "model.layers.1.self_attn.o_proj.weight", model.load_weights
    model.load_weights = lambda weights: load((n, t) for n, t in weights if n != name)
    with pytest.raises(EngineFault, match=f"1 tensors are not in place as the manifest promises, among them {name}"):
        one.load(tiny, make_patch(tiny, "magnitude", sparsity=0.5))
    engine.close()


def test_stale_packed_matrix_is_caught(
    tied: Path, tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    """vLLM's own fault on CPUs: after a reload, a tied output head keeps multiplying by the old weights."""
    other = random_checkpoint(tmp_path / "other", tiny, seed=3, tie_word_embeddings=True)
    one = engine(tied, fresh=True)
    one.load(tied, make_patch(tied))
    model = one._engine.apply_model(lambda model: model)[0]
    head = model.lm_head if hasattr(model.lm_head, "cpu_linear") else model.model.embed_tokens
    old = head.cpu_linear
    type(head).cpu_linear = property(lambda self: old, lambda self, value: None)
    del head.__dict__["cpu_linear"]
    try:
        with pytest.raises(EngineFault, match="canary log-probabilities differ"):
            one.load(other, make_patch(other))
    finally:
        del type(head).cpu_linear
    engine.close()


def test_patch_of_another_base_is_refused(tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    one = engine(tiny, fresh=True)
    one.load(tiny, make_patch(tiny))
    with pytest.raises(EngineFault, match="made from base"):
        one.load(tiny, make_patch(other, "magnitude", sparsity=0.5))
    engine.close()


def test_flipped_bit_in_a_patch_is_refused_and_the_engine_stays_well(
    tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(make_patch(tiny, "magnitude", sparsity=0.5), damaged)
    file = max(damaged.glob("*"), key=lambda f: (f.suffix != ".json", f.stat().st_size))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    one = engine(tiny)
    one.load(tiny, make_patch(tiny))
    before = complete(one, long_prompts(tiny, 2))
    with pytest.raises(VariantFault, match=file.name):
        one.load(tiny, damaged)
    one.load(tiny, make_patch(tiny))
    assert complete(one, long_prompts(tiny, 2)) == before


def test_patch_on_a_disk_that_fails_is_nobody_s_fault_and_is_read_again(
    tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    store, item = Store.open(str(tmp_path)), replace(make_item("p0"), job=DrawJob("problem", (5, 6, 7), 0, (8,)))
    store.publish_patch(make_patch(tiny, "magnitude", sparsity=0.5), "patch")
    file = next((tmp_path / "patches" / "patch").glob("layer-*"))
    good = file.rename(tmp_path / "good")
    file.symlink_to(UNREADABLE)
    one = engine(tiny)
    worker = EvalWorker("engine", lambda base, patch: one, store, tiny, None, tmp_path, Pace(store_seconds=60.0))
    said = []
    for report in worker.run(Shard("task", make_context("c"), (item,)), Inbox()):
        said.append(report)
        if isinstance(report, Troubled):
            assert report.failure.kind == "store"
            assert "patch patch cannot be read (unreachable)" in report.failure.cause
            good.replace(file)
    assert [type(report) for report in said if not isinstance(report, Heartbeat)] == [
        Troubled, Swapped, Hungry, Committed, Ended,
    ]  # fmt: skip


def test_file_that_cannot_be_read_in_mid_swap_retires_the_engine_and_speaks_against_no_patch(
    tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    failing = tmp_path / "failing"
    shutil.copytree(tiny, failing)
    (failing / "config.json").unlink()
    (failing / "config.json").symlink_to(UNREADABLE)
    with pytest.raises(EngineFault, match=r"broke off: OSError: \[Errno 5\] Input/output error") as caught:
        engine(tiny).load(failing, make_patch(tiny))
    assert caught.value.failure.kind == "store"
    engine.close()


def test_checkpoint_that_lacks_a_tensor_is_refused(
    tiny: Path, make_patch: MakePatch, engine: OneEngine, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    patch = make_patch(tiny)
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises((ValueError, VariantFault, EngineFault), match="down_proj"):
        engine(tiny).load(broken, patch)
    engine.close()


def test_patch_that_promises_other_weights_than_it_holds_is_refused(
    tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    """The proof's own test: seals and file digests hold, and still one tensor does not come out as promised."""
    lying = tmp_path / "lying"
    shutil.copytree(make_patch(tiny, "magnitude", sparsity=0.5), lying)
    manifest, name = read_manifest(lying), "model.layers.2.mlp.up_proj.weight"
    promised = manifest.tensors | {name: read_manifest(make_patch(tiny)).tensors[name]}
    (lying / "manifest.json").write_bytes(encode_manifest(replace(manifest, tensors=promised)))
    one = engine(tiny, fresh=True)
    with pytest.raises(EngineFault, match=f"rank 0: 1 tensors are not in place .* among them {name}"):
        one.load(tiny, lying)
    engine.close()


def test_variant_full_of_nan_is_its_own_fault_and_leaves_nothing_behind(
    tied: Path, tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    poisoned = tmp_path / "poisoned"
    shutil.copytree(tied, poisoned)
    tensors = load_file(poisoned / "model.safetensors")
    tensors["model.layers.0.self_attn.k_proj.weight"].fill_(float("nan"))
    save_file(tensors, poisoned / "model.safetensors", metadata={"format": "pt"})
    canary = read_manifest(make_patch(poisoned)).canary
    assert all(map(math.isnan, canary.logprobs))

    engine.close()
    one, asks = VllmEngine(tied, None, replace(SETTINGS, cpu_cache_mib=1)), long_prompts(tied, 2)
    one.load(tied, make_patch(tied))
    before = complete(one, asks)
    with pytest.raises(VariantFault, match=r"nan: the weights .* give NaN on the canary prompt"):
        one.load(poisoned, make_patch(poisoned))
    # Against the rule, generate all the same, until NaN fills the key-value cache wherever the next variant may use it,
    # and a block that it fills only in part ends in NaN.
    poison = long_prompts(tied, cache_tokens(one) // 320, length=320)
    for number, one_ask in enumerate(poison):
        one.submit(f"poisoned {number}", one_ask, GREEDY)
    with pytest.raises(EngineFault, match="nan-logits"):
        one.step()
    one.cancel([f"poisoned {number}" for number in range(len(poison))])
    one.load(tied, make_patch(tied))
    assert complete(one, asks) == before
    one.close()


def test_nan_logits_raise_instead_of_answering_token_zero(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one = engine(tiny, fresh=True)
    one.load(tiny, make_patch(tiny))
    model = one._engine.apply_model(lambda model: model)[0]
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(EngineFault, match=r"nan-logits: .*NaNs detected"):
        complete(one, long_prompts(tiny, 1))
    engine.close()


def test_closed_engine_lets_go_of_its_weights(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one = engine(tiny, fresh=True)
    one.load(tiny, make_patch(tiny))
    model = weakref.ref(one._engine.apply_model(lambda model: model)[0].model.embed_tokens)
    engine.close()
    del one
    gc.collect()
    assert model() is None, "the next engine in this process would find the memory taken"


def test_settings_that_can_shift_numerics_are_told(tiny: Path, engine: OneEngine) -> None:
    told = engine(tiny).settings()
    assert told["vllm"]
    assert told["torch"] == torch.__version__
    assert told["dtype"] == SETTINGS.dtype
    assert told["tensor_parallel"] == "1"


def _calibration(tiny: Path) -> object:
    from pruning.spec import CalibrationSpec

    return CalibrationSpec(str(tiny.parent / "calibration.jsonl"), samples=4, tokens=64)
