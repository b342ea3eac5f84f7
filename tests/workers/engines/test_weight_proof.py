"""What the real engine catches and refuses: stale, missing, flipped, unreadable and foreign weights, and NaN."""

import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch.nn.functional import linear

from eval.draws import DrawJob
from orchestrator.store.store import Store
from pruning.patch.manifest import encode_manifest, read_manifest
from tests.support.asks import GREEDY, cache_tokens, complete, long_prompts
from tests.support.builders import make_context, make_item
from tests.workers.engines.conftest import SETTINGS, MakePatch, OneEngine, random_checkpoint
from workers.engines.canary_check import TOLERANCE
from workers.engines.engine import EngineFault, VariantFault
from workers.engines.vllm_engine import VllmEngine
from workers.eval_worker import EvalWorker
from workers.evaluation import FeedSettings
from workers.messages import Committed, Heartbeat, Shard, StoreBlocked, TaskEnded, WantsMore, WeightsLoaded
from workers.worker import Inbox

LARGE = 3.0
"""With weights of this spread, log-probabilities are about -60 and bfloat16 moves them by 0.3 nats."""

UNREADABLE = "/proc/self/mem"
"""Reading it from its beginning gives EIO, as a mount does whose server is gone."""


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
    with pytest.raises(EngineFault, match=f"1 tensors differ from the manifest, among them {name}"):
        one.load(tiny, make_patch(tiny, "magnitude", sparsity=0.5))
    engine.close()


@pytest.mark.parametrize("spread", [0.3, LARGE])
def test_stale_packed_matrix_is_caught(
    spread: float, tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    """vLLM's own fault on CPUs: after a reload, a tied output head keeps multiplying by the old weights."""
    first, other, third = (
        random_checkpoint(tmp_path / str(seed), tiny, seed=seed, initializer_range=spread, tie_word_embeddings=True)
        for seed in (1, 3, 4)
    )
    one = engine(first, fresh=True)
    one.load(first, make_patch(first))
    model = one._engine.apply_model(lambda model: model)[0]
    head = model.lm_head if hasattr(model.lm_head, "cpu_linear") else model.model.embed_tokens
    old = head.weight.detach().clone()  # not every CPU repacks; where one does, this is what stays
    stale = property(lambda self: lambda x, weight, bias: linear(x, old, bias), lambda self, value: None)
    type(head).cpu_linear = stale
    del head.__dict__["cpu_linear"]
    try:
        with pytest.raises(VariantFault, match="the canary's log-probabilities differ"):
            one.load(other, make_patch(other))
        with pytest.raises(EngineFault, match=r"the canary's log-probabilities differ .*has just refused"):
            one.load(third, make_patch(third))
    finally:
        del type(head).cpu_linear
    engine.close()


def test_variant_that_rounding_moves_by_more_than_a_tenth_of_a_nat_is_proved(
    tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    """As pruning by 70 % makes a real model: large log-probabilities, and bfloat16 moves them by 0.3 nats."""
    large = random_checkpoint(tmp_path / "large", tiny, seed=1, initializer_range=LARGE)
    patch = make_patch(large)
    one = engine(large, fresh=True)
    proof = one.load(large, patch)
    assert proof.canary_error > 2 * TOLERANCE, "the checkpoint does not show what this test is about"

    old = tmp_path / "old"
    shutil.copytree(patch, old)
    manifest = read_manifest(old)
    (old / "manifest.json").write_bytes(encode_manifest(replace(manifest, canary=replace(manifest.canary, rounded={}))))
    assert one.load(large, old) == proof, "a patch of an earlier version, which records no rounding"
    engine.close()


def test_only_the_thread_that_built_an_engine_may_use_it(tiny: Path, engine: OneEngine, make_patch: MakePatch) -> None:
    one, ask = engine(tiny), long_prompts(tiny, 1)[0]
    one.load(tiny, make_patch(tiny))
    uses: list[Callable[[], object]] = [
        lambda: one.load(tiny, make_patch(tiny)), lambda: one.submit("a", ask, GREEDY), one.step,
        lambda: one.cancel(["a"]), one.settings, one.close,
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as other:
        for use in uses:
            with pytest.raises(RuntimeError, match=r"but the engine was built in thread .* build it in the thread"):
                other.submit(use).result()
    assert complete(one, [ask])


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
    worker = EvalWorker("engine", one, store, tiny, tmp_path, FeedSettings(store_seconds=60.0))
    said = []
    for report in worker.run(Shard("task", make_context("c"), (item,)), Inbox()):
        said.append(report)
        if isinstance(report, StoreBlocked):
            assert report.failure.kind == "store"
            assert "patch patch cannot be read (unreachable)" in report.failure.cause
            good.replace(file)
    assert [type(report) for report in said if not isinstance(report, Heartbeat)] == [
        StoreBlocked, WeightsLoaded, WantsMore, Committed, TaskEnded,
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


@pytest.mark.parametrize("digests", ["trees", "tensors"])
def test_patch_that_promises_other_weights_than_it_holds_is_refused(
    digests: str, tiny: Path, engine: OneEngine, make_patch: MakePatch, tmp_path: Path
) -> None:
    """The proof's own test: seals and file digests hold, and still one tensor does not come out as promised.

    A patch of an earlier version has no tree digests, and is proved by its SHA-256.
    """
    lying, honest = tmp_path / "lying", make_patch(tiny, "magnitude", sparsity=0.5)
    shutil.copytree(honest, lying)
    manifest, name = read_manifest(lying), "model.layers.2.mlp.up_proj.weight"
    if digests == "tensors":
        manifest = replace(manifest, trees={})
    one = engine(tiny, fresh=True)
    (lying / "manifest.json").write_bytes(encode_manifest(manifest))
    assert one.load(tiny, lying) == one.load(tiny, honest), "both kinds of digests prove the same weights"
    promised = getattr(manifest, digests) | {name: getattr(read_manifest(make_patch(tiny)), digests)[name]}
    (lying / "manifest.json").write_bytes(encode_manifest(replace(manifest, **{digests: promised})))
    with pytest.raises(EngineFault, match=f"rank 0: 1 tensors differ from the manifest, among them {name}"):
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
    with pytest.raises(EngineFault, match="nan: "):
        one.step()
    one.cancel([f"poisoned {number}" for number in range(len(poison))])
    one.load(tied, make_patch(tied))
    assert complete(one, asks) == before
    one.close()
