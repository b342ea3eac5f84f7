"""vLLM as an `Engine`. The swap inside its worker is workers/engines/swap_extension.py; nothing else imports vllm.

The engine runs inside the process that uses it, which calls its `step`: compared with the asynchronous engine it
generates 1.4 times as many tokens on a small host and starts in a fifth of the time, and when the process dies nothing
is left behind (docs/engine.md).

An engine starts with random weights of the right shape; every variant, the first included, is loaded by `load`. So
there is one way in, and it ends in a proof (promise proof-before-sample):

1. names and shapes are compared before anything is touched;
2. every tensor is digested in the engine's memory, on every rank, and compared with the manifest
   (workers/engines/weight_proof.py);
3. the prefix cache is emptied, and a canary prompt must find nothing cached;
4. the canary's log-probabilities must agree with those that other code computed when the patch was made, as far as the
   engine's arithmetic allows for this variant (workers/engines/canary_check.py).

One thread owns an engine: it builds, loads, steps and closes it. On a GPU vLLM remembers the stream of the thread that
warmed it up, and has its copies to the host wait for that stream alone: steps of another thread would run on another,
and their results would be read before they are there. `_own_thread` refuses every other thread.

After a mismatch in 1 to 3 the engine must be killed. If only the canary differs, the variant is given up (its draws are
missing, never wrong) and the engine goes on, once: a second variant in a row that it refuses speaks against the engine.
If the variant's own weights produce NaN, the variant is at fault. A file that cannot be read is neither's fault: before
anything was touched `load` can be retried, in mid-swap the engine is lost.
"""

import os

# Read by vLLM when it is imported. In-process: one import of vLLM instead of three, and no children that outlive this
# process. NaN logits must raise: vLLM would otherwise generate token 0 forever.
os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_RAISE_ON_LOGIT_NANS="1",
    VLLM_NO_USAGE_STATS="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
)
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# OpenMP threads spin: two engines, or two ranks, on the same cores slow each other down badly. Ray sets its own value.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import vllm
from vllm import EngineArgs, LLMEngine, SamplingParams, TokensPrompt
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.reload.layerwise import LAYERWISE_INFO
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from eval.draws import Ask, Completion
from eval.spec import SamplingSpec
from pruning.files import cache_folder
from pruning.model.architecture import config_of_length
from pruning.model.checkpoint import Checkpoint
from pruning.patch.canary import COMPARED
from pruning.patch.patch import Patch
from workers.engines.canary_check import CanaryCheck
from workers.engines.engine import Capacity, EngineFault, EngineSettings, Finished, Proof, VariantFault
from workers.engines.model_folder import model_folder
from workers.engines.ranks import Ranks, failure_of, nan_requests
from workers.failure import Failure, FailureKind
from workers.store import unavailable

GPU_BATCHED_TOKENS = 8192
"""Tokens of one step on a GPU. Forced answers bring their traces, and an evicted one is computed again in large pieces;
vLLM's own choice for this interface, 2048, is meant for a server's latency."""

GPU_SEQUENCES = 256
"""Beyond it a step of an 8 B model on one H100 is no longer bound by reading the weights. Whether the cache has room
for so many is decided draw by draw (workers/draws/admission.py)."""

CPU_SEQUENCES = 64


class VllmEngine:
    """One vLLM engine for variants of one shape. See `workers.engines.engine.Engine`."""

    def __init__(self, base: Path, layers: int | None, settings: EngineSettings) -> None:
        """Start an engine for variants that keep `layers` blocks of `base` (None: all); `load` brings the weights.

        The engine belongs to the calling thread.
        """
        self._thread = threading.get_native_id()
        checkpoint = Checkpoint.open(base)
        _quiet_process(settings)
        config = config_of_length(checkpoint.config, layers or checkpoint.num_layers)
        folder = model_folder(cache_folder() / "engines", base, config)
        # vLLM collects garbage five times as it starts, 0.3 s each for all imported objects; freezing them spares that.
        # vLLM unfreezes them when it shuts down. Collect once before: a closed engine is garbage, weights and all.
        gc.collect()
        gc.freeze()
        sequences = settings.max_sequences or (CPU_SEQUENCES if current_platform.is_cpu() else GPU_SEQUENCES)
        self._engine = LLMEngine.from_engine_args(_engine_args(str(folder), settings, sequences))
        self._context = self._engine.vllm_config.model_config.max_model_len
        self._ranks = Ranks(self._engine.engine_core.engine_core.model_executor)
        if settings.tensor_parallel > 1:
            self._engine.collective_rpc("die_with", args=(os.getpid(),))
        self._patience = settings.patience_seconds
        self._facts = _facts(self._engine)
        self._canaries = self._generated = 0
        self._canary_check = CanaryCheck(self._facts["dtype"])

    def _own_thread(self, doing: str) -> None:
        """Raise RuntimeError unless this is the thread that built the engine; see the module's docstring."""
        if (here := threading.get_native_id()) != self._thread:
            raise RuntimeError(
                f"{doing} from thread {here}, but the engine was built in thread {self._thread} and computes right "
                f"only there; build it in the thread that uses it"
            )

    def load(self, base: Path, patch: Path) -> Proof:
        """Swap in the weights of `base` + `patch` and prove it. See `workers.engines.engine.Engine.load`."""
        self._own_thread("a swap")
        if self._engine.has_unfinished_requests():
            raise EngineFault(Failure(FailureKind.ENGINE_ERROR, "a swap was requested while requests were in flight"))
        try:
            made = Patch.open(patch)
        except ValueError as error:
            cause = f"{error} Delete the folder {patch} and run the sweep again"
            raise VariantFault(Failure(FailureKind.BAD_INPUT, cause)) from error
        except OSError as error:
            raise unavailable(str(patch.parent), f"patch {patch.name} cannot be read", error) from error
        try:
            problems = self._engine.collective_rpc("swap_weights", self._patience, args=(str(base), str(patch)))
        except Exception as error:  # whatever vLLM raised in mid-swap, the engine now holds neither variant
            raise self._fault(error, _swap_failure(error), f"swap to {patch.name} broke off: ") from error
        for rank, problem in enumerate(problems):
            if problem:
                raise EngineFault(Failure(FailureKind.PROOF, f"swap to {patch.name}, rank {rank}: {problem}"))
        if not self._engine.reset_prefix_cache():
            raise EngineFault(Failure(FailureKind.PROOF, f"swap to {patch.name}: the prefix cache would not empty"))
        return Proof(made.manifest.weights_digest, self._canary_error(Checkpoint.open(base), made))

    def _canary_error(self, base: Checkpoint, made: Patch) -> float:
        patch, canary = made.folder.name, made.manifest.canary
        if not all(map(math.isfinite, canary.logprobs)):
            raise VariantFault(
                Failure(FailureKind.NAN, f"the weights of {patch} give NaN on the canary prompt, as recorded")
            )
        # At least one block of the cache, or a stale block could not be noticed.
        positions = max(COMPARED, self._engine.vllm_config.cache_config.block_size)
        token_ids = list(canary.token_ids[: positions + 1])
        output = self._ask_canary(token_ids)
        if cached := output.num_cached_tokens:
            raise EngineFault(Failure(FailureKind.PROOF, f"swap to {patch}: {cached} canary tokens were still cached"))
        assert output.prompt_logprobs is not None
        got = [
            entry[token].logprob
            for token, entry in zip(token_ids[1:], output.prompt_logprobs[1:], strict=True)
            if entry is not None
        ]
        return self._canary_check.difference(got, base, made)

    def _ask_canary(self, token_ids: list[int]) -> RequestOutput:
        self._canaries += 1
        # Prompt log-probabilities bypass the prefix cache by default; here stale cached tokens must be noticed.
        params = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, skip_reading_prefix_cache=False
        )
        self._engine.add_request(f"canary-{self._canaries}", TokensPrompt(prompt_token_ids=token_ids), params)
        while self._engine.has_unfinished_requests():
            for output in self._step():
                if output.finished:
                    return output
        raise EngineFault(Failure(FailureKind.ENGINE_ERROR, "the canary request vanished"))

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec, rank: int = 0) -> None:
        """Begin one ask. Raises ValueError if it does not fit: vLLM would silently cut it short."""
        self._own_thread("a request")
        if len(ask.prompt_ids) + ask.max_tokens > self._context:
            raise ValueError(
                f"ask {name}: {len(ask.prompt_ids)} prompt + {ask.max_tokens} new tokens exceed the engine's context "
                f"of {self._context}; lower the token limits or raise the model's max_position_embeddings"
            )
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=ask.seed if sampling.temperature > 0 else None,
            max_tokens=ask.max_tokens,
            min_tokens=ask.min_tokens,
            stop_token_ids=list(ask.stop_token_ids),
            stop=list(ask.stop_texts) or None,
            ignore_eos=True,  # the budget decides where to stop, and names end-of-sequence itself
            detokenize=bool(ask.stop_texts),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = TokensPrompt(prompt_token_ids=list(ask.prompt_ids))
        self._engine.add_request(name, prompt, params, priority=rank)

    def step(self) -> Sequence[Finished]:
        """Advance every request by one token; return those that finished."""
        self._own_thread("a step")
        done = [output for output in self._step() if output.finished]
        self._generated += sum(len(output.outputs[0].token_ids) for output in done)
        return [_finished(output) for output in done]

    def _step(self) -> list[RequestOutput]:
        try:
            return self._engine.step()
        except Exception as error:  # vLLM's own types must not leave this process: unpickling them imports vllm
            raise self._fault(error, FailureKind.ENGINE_ERROR) from error

    def _fault(self, error: Exception, otherwise: FailureKind, prefix: str = "") -> EngineFault:
        """`error` as an EngineFault: a dead rank, else what the message says, else a failure of kind `otherwise`."""
        failure = self._ranks.failure() or failure_of(error, otherwise)
        if failure.kind in (FailureKind.ENGINE_LOST, FailureKind.HANG):
            self._ranks.kill()  # the others would wait forever in a collective operation
        in_flight = self._engine.output_processor.request_states
        asks = [in_flight[name].external_req_id for name in nan_requests(error) if name in in_flight]
        return EngineFault(Failure(failure.kind, prefix + failure.cause), asks)

    def cancel(self, names: Sequence[str]) -> None:
        """Abort asks. Their partial tokens are dropped: an aborted request is not a sample."""
        self._own_thread("an abort")
        self._engine.abort_request(list(names))

    def capacity(self) -> Capacity:
        """What vLLM has allocated."""
        config = self._engine.vllm_config
        sequences, block = config.scheduler_config.max_num_seqs, config.cache_config.block_size
        return Capacity(sequences, _cache_tokens(config), block)

    def progress(self) -> Mapping[str, int]:
        """The tokens of each request in flight, as far as vLLM has processed them."""
        self._own_thread("a question about its progress")
        states = self._engine.output_processor.request_states.values()
        return {s.external_req_id: s.detokenizer.num_output_tokens() for s in states if s.detokenizer is not None}

    def tokens_generated(self) -> int:
        """The tokens of finished requests, and of those in flight as far as vLLM has processed them."""
        states = self._engine.output_processor.request_states.values()
        return self._generated + sum(s.detokenizer.num_output_tokens() for s in states if s.detokenizer is not None)

    def settings(self) -> Mapping[str, str]:
        """What can change numerics, by the choices that vLLM has made."""
        self._own_thread("a question about its settings")
        return self._facts

    def close(self) -> None:
        """Release the device. The process can start another engine afterwards."""
        self._own_thread("an end")
        self._engine.engine_core.shutdown()
        # This weak-keyed dictionary's values refer to its keys, the layers: it would keep the weights alive.
        LAYERWISE_INFO.clear()


def _swap_failure(error: Exception) -> FailureKind:
    """The kind of failure of a broken-off swap: STORE if a file could not be read, since no patch is to blame.

    vLLM quotes the error of another process's rank, where an operating system's error begins with its number.
    """
    return FailureKind.STORE if isinstance(error, OSError) or "[Errno " in str(error) else FailureKind.PROOF


def _engine_args(folder: str, settings: EngineSettings, sequences: int) -> EngineArgs:
    common: dict[str, Any] = dict(
        model=folder,
        load_format="dummy",
        worker_extension_cls="workers.engines.swap_extension.SwapExtension",
        generation_config="vllm",
        dtype=settings.dtype,
        max_num_seqs=sequences,
        max_model_len=settings.context_length,
        tensor_parallel_size=settings.tensor_parallel,
        seed=0,
        scheduling_policy="priority",
    )
    if current_platform.is_cpu():
        return EngineArgs(
            **common,
            enforce_eager=True,
            kv_cache_memory_bytes=settings.cpu_cache_mib << 20,
            block_size=32,  # the smallest on a CPU: forced answers find more of their trace cached
            # A seeded request whose prefill is cut into chunks crashes the CPU sampler.
            enable_chunked_prefill=False,
            max_num_batched_tokens=max(settings.context_length, 4096),
        )
    return EngineArgs(
        **common,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        max_num_batched_tokens=max(GPU_BATCHED_TOKENS, sequences),
    )


def _cache_tokens(config: VllmConfig) -> int:
    """Tokens that the key-value cache holds. One block is vLLM's own, a placeholder."""
    return (config.cache_config.num_gpu_blocks - 1) * config.cache_config.block_size


def _facts(engine: LLMEngine) -> dict[str, str]:
    config = engine.vllm_config
    backends: list[list[str]] = engine.collective_rpc("attention_backends")
    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "device": str(current_platform.get_device_name()) if not current_platform.is_cpu() else "cpu",
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "tensor_parallel": str(config.parallel_config.tensor_parallel_size),
        "eager": str(config.model_config.enforce_eager),
        "attention": "+".join(sorted({name for rank in backends for name in rank})),
        "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0"),
        "runner": "V2" if config.use_v2_model_runner else "V1",
        "async_scheduling": str(config.scheduler_config.async_scheduling),
        "max_sequences": str(config.scheduler_config.max_num_seqs),
        "cache_tokens": str(_cache_tokens(config)),
        "batched_tokens": str(config.scheduler_config.max_num_batched_tokens),
        "threads": str(torch.get_num_threads()),
    }


def _finished(output: RequestOutput) -> Finished:
    made = output.outputs[0]
    prompt_tokens = len(output.prompt_token_ids or ())
    if made.finish_reason not in ("stop", "length"):
        result: Completion | Failure = Failure(
            FailureKind.ENGINE_ERROR, f"vLLM ended the request with {made.finish_reason!r}"
        )
    else:
        result = Completion(tuple(made.token_ids), "stop" if made.finish_reason == "stop" else "length")
    return Finished(output.request_id, result, prompt_tokens, output.num_cached_tokens or 0)


def _quiet_process(settings: EngineSettings) -> None:
    """Turn off what the engine's process, and the ranks that inherit its environment, do not need."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # vLLM's own, at every start
    os.environ["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] = str(settings.patience_seconds)
    os.environ["VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS"] = "1"  # ranks have nothing to save
    threads = int(os.environ["OMP_NUM_THREADS"])
    if torch.get_num_threads() != threads:  # torch was imported before the environment was set
        torch.set_num_threads(threads)
    if current_platform.is_cpu():
        # Execution is eager anyway: this spares compiling two counting functions, 13 s of an engine's first swap.
        torch._dynamo.config.disable = True
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
