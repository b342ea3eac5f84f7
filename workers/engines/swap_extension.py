"""The swap of weights inside vLLM's worker, one per rank: mixed into its class by its name, which vLLM is given.

What a swap proves, and in which order, is said in workers/engines/vllm_engine.py.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import torch
from vllm.config import set_current_vllm_config

from pruning.model.checkpoint import Checkpoint
from pruning.patch.patch import Patch
from pruning.prefetch import spare_threads
from workers.engines.weight_proof import DigestPool, ParameterDigests, Promise, VerifiedStream, layout, shapes
from workers.parent_death import die_with

SWAP_THREADS = 8
"""Most threads that read and decode ahead of a swap, and as many that digest behind it. Each holds a block, which a GPU
takes faster than a core decodes it."""


class SwapExtension:
    """Mixed into vLLM's worker, one per rank; reached through `collective_rpc`."""

    def swap_weights(self, base: str, patch: str) -> str:
        """Stream base + patch into this rank. Returns what could not be proved, or an empty string."""
        worker: Any = self
        model = worker.model_runner.get_model()
        made = Patch.open(patch, verify=False)
        checkpoint = Checkpoint.open(base)
        sources = shapes(checkpoint, made)
        plan = layout(model, sources, worker.rank)
        if problem := plan.mismatch(set(sources)):
            return problem
        dtype = worker.vllm_config.model_config.dtype
        threads = spare_threads(SWAP_THREADS)
        with closing(DigestPool(threads)) as digests, ThreadPoolExecutor(1) as beside:
            # A NaN in the KV cache would outlive its variant. On a device this thread's stream clears it, behind a last
            # step that may still run: another thread has another stream, which would not wait for it.
            caches = getattr(worker.model_runner, "kv_caches", [])
            beside_loading = worker.device.type == "cpu"
            if not beside_loading:
                zero(caches)
            emptied = beside.submit(zero, caches if beside_loading else [])
            promise = Promise.of(made.manifest)
            weights = made.weights(checkpoint, ahead=threads, device=worker.device)
            stream = VerifiedStream(weights, promise, plan.slices, dtype, digests)
            parameters = ParameterDigests(model, plan, promise.digest, digests)
            with parameters.observing():
                worker.reload_weights(weights_iterator=iter(stream))
                with set_current_vllm_config(worker.vllm_config):
                    repack_vocabularies(model)
            emptied.result()
            if missing := stream.missing():
                return f"{len(missing)} tensors are missing from the patch and its base, among them {missing[0]}"
            if wrong := parameters.mismatches(stream.expected()):
                return f"{len(wrong)} tensors differ from the manifest, among them {wrong[0]}"
            return ""

    def attention_backends(self) -> list[str]:
        """The names of the attention backends that this rank's layers have chosen."""
        worker: Any = self
        layers = worker.vllm_config.compilation_config.static_forward_context.values()
        return sorted({layer.attn_backend.get_name() for layer in layers if hasattr(layer, "attn_backend")})

    def die_with(self, pid: int) -> None:
        """Have this rank's process die with the process that drives the engine."""
        die_with(pid)


def repack_vocabularies(model: torch.nn.Module) -> None:
    """Repack tied output heads, which vLLM's reload on a CPU leaves with a packed copy of the old weights."""
    for module in model.modules():
        if hasattr(module, "cpu_linear") and hasattr(module, "shard_indices"):
            module.quant_method.process_weights_after_loading(module)


def zero(cache: Any) -> None:
    """Clear a tensor, or all tensors of nested sequences, and wait for the device to have done it."""
    if isinstance(cache, torch.Tensor):
        cache.zero_()
        cache[(0,) * cache.ndim].item()  # reading waits for the device
    else:
        for part in cache:
            zero(part)
