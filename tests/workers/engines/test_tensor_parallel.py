"""Tensor parallelism with real ranks on a CPU: the answers, the proof on every rank, and ranks that hang or die.

Starting ranks costs as much as importing vLLM twice, so each engine here serves several tests, in order, to its end.
In float32, where the order of a sum does not decide an argmax.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from vllm.v1.worker.cpu_worker import CPUWorker

from tests.support.asks import GREEDY, complete, long_prompts
from tests.workers.engines.conftest import SETTINGS, MakePatch, OneEngine, random_checkpoint
from workers.engines.engine import EngineFault
from workers.engines.vllm_engine import VllmEngine

WHOLE = replace(SETTINGS, dtype="float32")
SPLIT = replace(WHOLE, tensor_parallel=2, patience_seconds=10)
Answers = list[tuple[int, ...]]


@pytest.fixture(scope="module")
def split_heads(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Two key-value heads: each of two ranks keeps one."""
    return random_checkpoint(tmp_path_factory.mktemp("split") / "model", tiny, seed=5)


@pytest.fixture(scope="module")
def one_head(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """One key-value head for two ranks: both hold it."""
    return random_checkpoint(tmp_path_factory.mktemp("one") / "model", tiny, seed=6, num_key_value_heads=1)


@pytest.fixture(scope="module")
def expected(split_heads: Path, one_head: Path, make_patch: MakePatch, engine: OneEngine) -> dict[Path, list[Answers]]:
    """What engines of one process answer as the dense and as the pruned variant. A process holds one engine a time."""
    engine.close()
    answers: dict[Path, list[Answers]] = {}
    for base in (split_heads, one_head):
        alone = VllmEngine(base, None, WHOLE)
        answers[base] = [answer_as(alone, base, patch) for patch in variants(base, make_patch)]
        alone.close()
    return answers


def variants(base: Path, make_patch: MakePatch) -> list[Path]:
    return [make_patch(base), make_patch(base, "magnitude", sparsity=0.5)]


def answer_as(engine: VllmEngine, base: Path, patch: Path) -> Answers:
    engine.load(base, patch)
    return complete(engine, long_prompts(base))


@pytest.fixture(scope="module")
def splitting(split_heads: Path, expected: object) -> Iterator[VllmEngine]:
    engine = VllmEngine(split_heads, None, SPLIT)
    yield engine
    engine.close()


def test_two_ranks_answer_as_one_process_through_swaps_and_back(
    splitting: VllmEngine, split_heads: Path, expected: dict[Path, list[Answers]], make_patch: MakePatch
) -> None:
    (dense, pruned), answers = variants(split_heads, make_patch), expected[split_heads]
    assert answers[0] != answers[1], "the variants must differ, or this test shows nothing"
    assert answer_as(splitting, split_heads, dense) == answers[0]
    assert answer_as(splitting, split_heads, pruned) == answers[1]
    assert answer_as(splitting, split_heads, dense) == answers[0]


def test_every_rank_watches_the_process_that_drives_it(splitting: VllmEngine) -> None:
    def threads(_worker: CPUWorker) -> list[str]:
        return [thread.name for thread in threading.enumerate()]

    assert all("parent-death" in names for names in splitting._engine.collective_rpc(threads))


def test_rank_that_keeps_old_weights_is_named(splitting: VllmEngine, split_heads: Path, make_patch: MakePatch) -> None:
    name = "model.layers.1.mlp.down_proj.weight"

    def lose_one_tensor(worker: CPUWorker) -> None:
        if worker.rank == 1:
            model = worker.model_runner.get_model()
            load = model.load_weights
            model.load_weights = lambda weights: load((n, t) for n, t in weights if n != name)

    splitting._engine.collective_rpc(lose_one_tensor)
    with pytest.raises(EngineFault, match=f"rank 1: 1 tensors differ from the manifest, among them {name}"):
        splitting.load(split_heads, make_patch(split_heads, "magnitude", sparsity=0.5))


def test_rank_that_hangs_is_told_in_time_and_leaves_no_process(splitting: VllmEngine, split_heads: Path) -> None:
    ranks = pids(splitting)
    watched = [os.pidfd_open(pid) for pid in ranks]
    os.kill(ranks[1], signal.SIGSTOP)
    began = time.monotonic()
    assert fault_while_generating(splitting, split_heads).failure.kind == "hang"
    assert time.monotonic() - began < SPLIT.patience_seconds + 20
    assert gone(watched)


@pytest.fixture(scope="module")
def sharing(one_head: Path, splitting: VllmEngine) -> Iterator[VllmEngine]:
    splitting.close()
    engine = VllmEngine(one_head, None, SPLIT)
    yield engine
    engine.close()


def test_ranks_that_share_a_head_answer_as_one_process(
    sharing: VllmEngine, one_head: Path, expected: dict[Path, list[Answers]], make_patch: MakePatch
) -> None:
    got = [answer_as(sharing, one_head, patch) for patch in variants(one_head, make_patch)]
    assert got == expected[one_head]


def test_rank_that_is_killed_loses_the_engine_within_seconds(sharing: VllmEngine, one_head: Path) -> None:
    ranks = pids(sharing)
    watched = [os.pidfd_open(pid) for pid in ranks]
    sharing.submit("interrupted", replace(long_prompts(one_head, 1)[0], max_tokens=300), GREEDY)
    sharing.step()
    os.kill(ranks[0], signal.SIGKILL)
    began = time.monotonic()
    failure = fault_while_generating(sharing, one_head).failure
    assert failure.kind == "engine-lost"
    assert failure.cause == "the process of rank 0 died (exit code -9)"
    assert time.monotonic() - began < 30
    assert fault_while_generating(sharing, one_head).failure.kind == "engine-lost", "and so it stays"
    assert gone(watched)


def pids(engine: VllmEngine) -> list[int]:
    """Of the ranks, in order."""
    return engine._engine.collective_rpc(lambda worker: __import__("os").getpid())


def fault_while_generating(engine: VllmEngine, base: Path) -> EngineFault:
    for ask in long_prompts(base, 2):
        engine.submit(f"{time.monotonic_ns()}", replace(ask, max_tokens=300), GREEDY)
    try:
        while not engine.step():
            pass
    except EngineFault as fault:
        return fault
    raise AssertionError("the engine generated on as if nothing were the matter")


def gone(pidfds: list[int], seconds: float = 20) -> bool:
    """Whether all these processes end within a time."""
    return all(select.select([pidfd], [], [], seconds)[0] for pidfd in pidfds)
