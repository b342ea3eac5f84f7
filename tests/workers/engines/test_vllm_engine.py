"""The real engine: what it answers after a swap, and what it refuses. For its proof see test_weight_proof.py."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from vllm import EngineArgs, LLMEngine, SamplingParams, TokensPrompt

from eval.spec import SamplingSpec
from pruning.model.checkpoint import Checkpoint
from pruning.patch.export import export
from pruning.patch.manifest import read_manifest
from tests.support.asks import GREEDY, ask, complete, long_prompts
from tests.workers.engines.conftest import SETTINGS, MakePatch, OneEngine, random_checkpoint
from workers.engines.engine import EngineFault


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


@pytest.mark.parametrize("tie", [True, False])
def test_checkpoint_of_ones_own_answers_as_a_fresh_engine_on_it(
    tie: bool, tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    """All of its tensors are others than the base's: embedding, norms and head, too."""
    base = random_checkpoint(tmp_path / "base", tiny, seed=1, tie_word_embeddings=tie)
    mine = random_checkpoint(tmp_path / "mine", tiny, seed=2, tie_word_embeddings=tie)
    patch = make_patch(base, "checkpoint", path=str(mine))
    asks = long_prompts(base)
    one = engine(base)
    one.load(base, make_patch(base))
    first = complete(one, asks)
    proof = one.load(base, patch)
    swapped = complete(one, asks)
    assert dict(read_manifest(patch).tensors) == Checkpoint.open(mine).tensor_digests()
    assert proof.weights_digest == read_manifest(patch).weights_digest
    fresh = engine(mine, fresh=True)
    fresh.load(mine, make_patch(mine))
    assert complete(fresh, asks) == swapped
    assert swapped != first


def test_engine_of_fewer_blocks_answers_as_the_exported_checkpoint(
    tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    patch = make_patch(tiny, "shortgpt", blocks=1, calibration=_calibration(tiny))
    asks = long_prompts(tiny, count=3)
    shorter = engine(tiny, layers=Checkpoint.open(tiny).num_layers - 1)
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
    ours = engine(tiny, layers=Checkpoint.open(tiny).num_layers - axes.get("blocks", 0))
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


def test_nan_logits_raise_instead_of_answering_token_zero(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one = engine(tiny, fresh=True)
    one.load(tiny, make_patch(tiny))
    model = one._engine.apply_model(lambda model: model)[0]
    model.model.norm.weight.data.fill_(float("nan"))
    one.submit("0", long_prompts(tiny, 1)[0], GREEDY)
    with pytest.raises(EngineFault, match=r"nan: .*NaNs detected") as caught:
        one.step()
    assert caught.value.asks == ("0",)
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
    assert told["attention"] == "CPU_ATTN", "the backend that was chosen, not that none was asked for"
    assert told["runner"] == "V1"
    assert told["async_scheduling"] == "False"
    assert told["batched_tokens"] == "4096"
    assert told["max_sequences"] == str(SETTINGS.max_sequences)
    assert told["cache_tokens"] == str(engine(tiny).capacity().cache_tokens)
    assert told["threads"] == str(torch.get_num_threads())


def _calibration(tiny: Path) -> object:
    from pruning.spec import CalibrationSpec

    return CalibrationSpec(str(tiny.parent / "calibration.jsonl"), samples=4, tokens=64)
