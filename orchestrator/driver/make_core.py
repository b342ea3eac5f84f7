"""Turns a plan into the scheduler's initial state, for a fleet on the devices of the cluster."""

from orchestrator.cluster.backend import Devices
from orchestrator.grid.errors import InputError
from orchestrator.grid.format import Runtime
from orchestrator.plan.cost import length_estimator
from orchestrator.plan.plan import Plan
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.work import ContextWork, LengthEstimator, PatchState, PatchWork, Policy
from orchestrator.store.store import Store
from pruning.allocators.shared_passes import shared_passes
from workers.messages import Gold, PatchRequest


def make_core(plan: Plan, store: Store, runtime: Runtime, devices: Devices) -> Core:
    """A core for what `plan` owes, on a fleet of `devices`.

    Raises InputError if draws are owed and no node has enough GPUs for one engine.
    """
    fitting = devices.groups(runtime.tensor_parallel) if devices.gpus else devices.cpus
    if plan.draws_owed and not fitting:
        raise InputError(
            f"{plan.resolved.grid.source.where(('runtime', 'tensor_parallel'))}: an engine takes "
            f"{runtime.tensor_parallel} GPUs of one node, and no node has more than {max(devices.node_gpus)} "
            f"({devices.gpus} GPUs on {devices.nodes} nodes); set it to {max(devices.node_gpus)} or less, or use a "
            "cluster of larger nodes"
        )
    slots = runtime.slots or fitting
    engines = runtime.engines or (slots if devices.gpus else 1)
    policy = Policy(
        engines=max(1, min(engines, slots)),
        slots=max(1, slots),
        nodes=devices.groups_of(runtime.tensor_parallel),
        attempts=runtime.attempts,
        start_seconds=runtime.start_seconds,
        silence_seconds=runtime.silence_seconds,
        stall_seconds=runtime.stall_seconds,
        prune_seconds=runtime.prune_seconds,
        smallest_shard=16,
        largest_shard=max(16, runtime.draws_in_flight),
    )
    stored = store.patch_ids()
    patches: dict[str, PatchWork] = {}
    contexts: list[ContextWork] = []
    models: dict[str, tuple[LengthEstimator, tuple[Gold, ...]]] = {}
    for owed in plan.contexts:
        variant = owed.variant
        if variant.patch_id not in patches:
            request = PatchRequest(variant.patch_id, variant.spec, variant.patch_payload)
            state = PatchState.STORED if variant.patch_id in stored else PatchState.OWED
            passes = shared_passes(variant.spec)
            patches[variant.patch_id] = PatchWork(request, owed.decoding.context.shape.model, state, passes)
        if variant.model_path not in models:
            models[variant.model_path] = (length_estimator(variant), tuple(q.gold for q in variant.questions))
        lengths, golds = models[variant.model_path]
        if owed.stored is not None:
            for number, tokens in enumerate(owed.stored.lengths):
                if tokens >= 0:
                    patches[variant.patch_id].sampled = True
                    lengths.observe(number // len(owed.seeds), tokens)
        contexts.append(
            ContextWork(
                owed.decoding.context,
                golds,
                owed.order,
                lengths,
                len(owed.seeds),
                owed.limit,
                owed.stored_tokens(),
                ungraded=owed.ungraded > 0,
                fresh=owed.numbers,
            )
        )
    return Core(policy, patches.values(), contexts)
