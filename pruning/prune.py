"""Jobs on one checkpoint -> committed patches: `prune` for one, `prune_many` to share what several have in
common.

Shared: the base's digests, the token windows, one dense calibration pass per calibration (norms, OWL's
outliers, ShortGPT's influence), gradients and spectra, and one read of the weights for all jobs whose masks
follow from dense statistics. A job whose pruned activations feed its next block has nothing to share and
makes a pass of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pruning.allocators.sparsities import Requested, part_sizes, requested_sparsities
from pruning.allocators.statistics import Evidence, gather
from pruning.files import folder_in_one_piece
from pruning.methods.masks import cut, cutoff
from pruning.methods.prune_block import PrunedLayer, prune_by_score, prune_by_solver, score
from pruning.methods.shortgpt import kept_layers
from pruning.model.architecture import LINEARS, PARTS, layer_prefix
from pruning.model.checkpoint import Checkpoint
from pruning.model.memory import peak_memory
from pruning.model.passes import Pass, Visit, run_pass
from pruning.model.tensors import read_tensor
from pruning.patch.manifest import Canary, Manifest
from pruning.patch.writer import PatchWriter
from pruning.spec import METHODS, PruneSpec, describe, resolve

Job = tuple[PruneSpec, Path, dict[str, Any]]
"""A spec, the folder its patch is to appear in, and the identity payload to store with it."""
Progress = Callable[[str], None]


def prune(
    model_dir: str | Path,
    spec: PruneSpec,
    destination: str | Path,
    *,
    payload: dict[str, Any],
    device: str = "cpu",
    progress: Progress | None = None,
) -> Manifest:
    """Prune one checkpoint into a verified patch folder, which appears whole or not at all.

    Raises ValueError for a spec, checkpoint or calibration that cannot work, naming the thing, the rule, the
    remedy.
    """
    return prune_many(model_dir, [(spec, Path(destination), payload)], device=device, progress=progress)[0]


def prune_many(
    model_dir: str | Path,
    jobs: Sequence[Job],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Manifest]:
    """`prune` for several specs of one checkpoint; manifests in the order of `jobs`.

    Patches appear as they are done. An error leaves those already done and nothing of the others.
    """
    say = progress or (lambda _text: None)
    started = time.monotonic()
    _check_device(device)
    base = Checkpoint.open(model_dir)
    specs = [resolve(spec) for spec, _, _ in jobs]
    for spec in specs:
        check_against(base, spec)
    evidence = gather(base, specs, device=device, progress=say)
    tasks = [
        _Task(base, spec, found, destination, payload, device, started)
        for spec, found, (_, destination, payload) in zip(specs, evidence, jobs, strict=True)
    ]
    manifests: dict[Path, Manifest] = {}
    with ExitStack() as folders:
        together = {task: task.open(folders) for task in tasks if not walks_alone(task.spec)}
        masking = {task: writer for task, writer in together.items() if task.requested}
        choosers = {task: _dense_chooser(task) for task in masking}
        if masking:

            def visit(seen: Visit) -> dict[str, torch.Tensor]:
                for task, writer in masking.items():
                    pruned = choosers[task](seen)
                    writer.add(seen.index, seen.weights, pruned, task.requested[seen.index])
                return {}

            run_pass(Pass(base, None, device), visit, lambda text: say(f"masks: {text}"))
        for task, writer in together.items():
            manifests[task.destination] = task.finish(writer)
    for task in tasks:
        if walks_alone(task.spec):
            manifests[task.destination] = _walk_alone(task, say)
    return [manifests[task.destination] for task in tasks]


def walks_alone(spec: PruneSpec) -> bool:
    """Whether a resolved spec needs a calibration pass of its own rather than the shared dense statistics."""
    return spec.propagate == "pruned" or spec.method == "sparsegpt"


def check_against(base: Checkpoint, spec: PruneSpec) -> None:
    """Raise ValueError for a resolved spec that this checkpoint cannot carry out."""
    if spec.pattern is not None:
        group = int(spec.pattern.split(":")[1])
        for name, header in base.tensors.items():
            linear = name.removesuffix(".weight").split(".", 3)[-1]
            if linear in LINEARS and header.shape[1] % group:
                raise ValueError(
                    f"pattern {spec.pattern}: {name} has {header.shape[1]} inputs, "
                    f"not a multiple of {group}; use an unstructured sparsity."
                )
    if spec.blocks is not None and spec.blocks >= base.num_layers:
        raise ValueError(f"blocks: cannot remove {spec.blocks} of {base.num_layers} blocks; leave at least one.")


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {device!r} cannot be used ({reason}); use 'cpu' or an existing GPU.") from None


@dataclass(frozen=True, eq=False)
class _Task:
    """One job with everything that was decided before the weights are touched."""

    base: Checkpoint
    spec: PruneSpec
    evidence: Evidence
    destination: Path
    payload: dict[str, Any]
    device: str
    started: float

    @cached_property
    def requested(self) -> Requested:
        """Sparsities per block and part; empty for a method that masks nothing."""
        if not METHODS[self.spec.method].allocated:
            return []
        return requested_sparsities(self.spec, part_sizes(self.base), self.evidence.layers)

    @cached_property
    def kept(self) -> tuple[int, ...]:
        if self.spec.blocks is None:
            return tuple(range(self.base.num_layers))
        influence = self.evidence.layers["block_influence"]
        return kept_layers(influence, self.spec.blocks, last_removable=self.spec.last_block == "removable")

    def open(self, folders: ExitStack) -> PatchWriter:
        return PatchWriter(folders.enter_context(folder_in_one_piece(self.destination)), self.base)

    def sparsity(self, layer: int) -> dict[str, float]:
        """The requested sparsity of each linear of a block."""
        return {linear: self.requested[layer][part] for part, linears in PARTS.items() for linear in linears}

    def finish(self, writer: PatchWriter) -> Manifest:
        total = sum(sum(sizes) for sizes in part_sizes(self.base).values())
        removed = sum(
            sizes[layer]
            for sizes in part_sizes(self.base).values()
            for layer in range(len(sizes))
            if layer not in self.kept
        )
        draft = Manifest(
            payload=self.payload,
            base=self.base.digest(),
            spec=self.spec,
            kept_layers=self.kept,
            layers=tuple(writer.layers),
            requested=self.spec.sparsity if self.spec.sparsity is not None else removed / total,
            realised=(writer.zeros + removed) / total,
            tensors=writer.tensor_digests(self.kept),
            canary=Canary((), ()),
            calibration=self.evidence.windows,
            evidence=self.evidence.layers,
            files=writer.files,
            seconds=round(time.monotonic() - self.started, 3),
            peak_memory_bytes=peak_memory(self.device),
        )
        return writer.finish(draft, self.device)


Chooser = Callable[[Visit], PrunedLayer]


def _dense_chooser(task: _Task) -> Chooser:
    """Masks from the shared dense statistics; group 'model' has one stream of masks over all layers."""
    norms = task.evidence.norms

    def on_device(layer: int) -> dict[str, torch.Tensor]:
        return {linear: value.to(task.device) for linear, value in norms[layer].items()} if norms else {}

    if task.spec.group == "model" and task.spec.pattern is None:
        masks = _model_masks(task, on_device)
        return lambda seen: PrunedLayer({linear: next(masks) for linear in seen.weights}, {})
    return lambda seen: prune_by_score(task.spec, seen.weights, on_device(seen.index), task.sparsity(seen.index))


def _model_masks(task: _Task, norms: Callable[[int], dict[str, torch.Tensor]]) -> Iterator[torch.Tensor]:
    """Keep masks of all linears of all layers, ranked together, streamed from the checkpoint three times."""

    def scores() -> Iterator[torch.Tensor]:
        for layer in range(task.base.num_layers):
            here = norms(layer)
            for linear in LINEARS:
                weight = read_tensor(task.base.tensors[f"{layer_prefix(layer)}{linear}.weight"]).to(task.device)
                yield score(task.spec, weight, here.get(linear))

    total = sum(sum(sizes) for sizes in part_sizes(task.base).values())
    assert task.spec.sparsity is not None
    assert task.spec.selection is not None
    if task.spec.sparsity == 0:
        return (torch.ones_like(each, dtype=torch.bool) for each in scores())
    return cut(scores(), cutoff(scores, int(total * task.spec.sparsity), task.spec.selection))


def _walk_alone(task: _Task, say: Progress) -> Manifest:
    """A calibration pass for one job, whose pruned blocks feed the next where its spec says so."""
    spec = task.spec
    with ExitStack() as folders:
        writer = task.open(folders)

        def visit(seen: Visit) -> dict[str, torch.Tensor]:
            assert seen.statistics is not None
            sparsity = task.sparsity(seen.index)
            if spec.method == "sparsegpt":
                pruned = prune_by_solver(spec, seen.weights, seen.statistics, sparsity)
            else:
                pruned = prune_by_score(spec, seen.weights, seen.statistics.all_norms(), sparsity)
            return writer.add(seen.index, seen.weights, pruned, task.requested[seen.index])

        plan = Pass(
            task.base,
            task.evidence.calibration,
            task.device,
            rerun=spec.propagate == "pruned",
            hessians=spec.method == "sparsegpt",
        )
        run_pass(plan, visit, lambda text: say(f"{describe(spec)}: {text}"))
        return task.finish(writer)
