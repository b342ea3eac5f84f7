"""Prune a checkpoint: `prune` for one job, `prune_many` and `prune_each` for several, which share what they can.

Shared are the base's digests, the token windows, one dense pass per calibration (input norms, OWL's outliers,
block influence), gradients and weight spectra, and one read of the weights for all jobs whose masks follow from
dense statistics. A job whose pruned activations feed its next block shares none of its passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pruning.allocators import ALLOCATORS
from pruning.allocators.allocator import Requested
from pruning.allocators.statistics import JobStatistics, gather
from pruning.files import move_into_place, unfinished_copy
from pruning.methods import METHODS
from pruning.methods.masks import cut, cutoff
from pruning.methods.prune_block import PrunedBlock, prune_by_score, prune_by_solver, score
from pruning.methods.ties import Ties
from pruning.model.architecture import LINEARS, PARTS, layer_prefix
from pruning.model.checkpoint import Checkpoint
from pruning.model.memory import peak_memory
from pruning.model.passes import BlockView, PassSettings, run_pass
from pruning.model.tensors import read_tensor
from pruning.patch.compare import write_differences
from pruning.patch.counterparts import Counterparts
from pruning.patch.manifest import Canary, Manifest
from pruning.patch.writer import PatchWriter
from pruning.resolve import resolve
from pruning.spec import PruneSpec, describe, n_of_m

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PruneJob:
    """One patch to make: `destination` is the folder it appears in, `payload` the identity payload stored with it."""

    spec: PruneSpec
    destination: Path
    payload: dict[str, Any]


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

    Raises ValueError, with the rule and the remedy, for a spec, checkpoint or calibration that cannot work.
    """
    job = PruneJob(spec, Path(destination), payload)
    return prune_many(model_dir, [job], device=device, progress=progress)[0]


def prune_many(
    model_dir: str | Path,
    jobs: Sequence[PruneJob],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Manifest]:
    """`prune` for several specs of one checkpoint; manifests in the order of `jobs`.

    Patches appear as they are finished. An error leaves the finished ones and nothing of the others.
    """
    manifests: dict[Path, Manifest] = {}
    with closing(prune_each(model_dir, jobs, device=device, progress=progress)) as results:
        for job, result in results:
            if isinstance(result, ValueError):
                raise result
            manifests[job.destination] = result
    return [manifests[job.destination] for job in jobs]


def prune_each(
    model_dir: str | Path,
    jobs: Sequence[PruneJob],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Generator[tuple[PruneJob, Manifest | ValueError], None, None]:
    """Prune several specs of one checkpoint, and yield each job as soon as its patch lies in its destination.

    In place of a manifest comes the ValueError of a job that cannot work, if it is its own: the others go on. Those of
    the checkpoint, or of calibration data that jobs share, are raised. Close the generator to end it early: what it has
    not yielded leaves nothing behind. The bytes of a patch do not depend on what is pruned along with it.
    """
    say = progress or (lambda _text: None)
    started = time.monotonic()
    _check_device(device)
    base = Checkpoint.open(model_dir)
    accepted: list[tuple[PruneJob, PruneSpec]] = []
    for job in jobs:
        try:
            spec = resolve(job.spec)
            check_against(base, spec)
        except ValueError as error:
            yield job, error
        else:
            accepted.append((job, spec))
    statistics = gather(base, [spec for _, spec in accepted], device=device, progress=say)
    planned = [
        _PlannedJob(base, job, spec, found, device, started)
        for (job, spec), found in zip(accepted, statistics, strict=True)
    ]
    alone = [one for one in planned if needs_own_pass(one.spec) or METHODS[one.spec.method].reads_checkpoint]
    yield from _prune_in_shared_pass([one for one in planned if one not in alone], say)
    for one in alone:
        try:
            manifest = _prune_in_own_pass(one, say) if one.pair is None else _compare(one, one.pair, say)
        except ValueError as error:
            yield one.job, error
        else:
            yield one.job, manifest


def _prune_in_shared_pass(
    planned: Sequence[_PlannedJob], say: Progress
) -> Iterator[tuple[PruneJob, Manifest | ValueError]]:
    """One read of the weights for all jobs whose masks follow from dense statistics; before it, those without masks."""
    failed: dict[_PlannedJob, ValueError] = {}
    writers: dict[_PlannedJob, PatchWriter] = {}
    masking: dict[_PlannedJob, tuple[Chooser, Ties]] = {}
    with ExitStack() as folders:
        for one in planned:
            with _noting(failed, one):
                writers[one] = one.open(folders)
                if one.requested:
                    masking[one] = _dense_chooser(one), one.count_ties()

        def visit(seen: BlockView) -> dict[str, torch.Tensor]:
            for one, (choose, ties) in masking.items():
                if one not in failed:
                    with _noting(failed, one):
                        pruned = choose(seen)
                        ties.add(seen.index, seen.weights, pruned.keep, one.sparsity(seen.index))
                        writers[one].add(seen.index, seen.weights, pruned, one.requested[seen.index])
            return {}

        def finish(one: _PlannedJob) -> tuple[PruneJob, Manifest | ValueError]:
            if one not in failed:
                with _noting(failed, one):
                    return one.job, one.finish(writers[one])
            return one.job, failed[one]

        yield from (finish(one) for one in planned if one not in masking)
        if masking:
            settings = PassSettings(planned[0].base, None, planned[0].device)
            run_pass(settings, visit, lambda text: say(f"masks: {text}"))
            _warn((ties for one, (_, ties) in masking.items() if one not in failed), say)
            yield from map(finish, masking)


@contextmanager
def _noting(failed: dict[_PlannedJob, ValueError], one: _PlannedJob) -> Iterator[None]:
    """Note a job's error, so that the others go on."""
    try:
        yield
    except ValueError as error:
        failed[one] = error


def _warn(counted: Iterable[Ties], say: Progress) -> None:
    for ties in counted:
        if warning := ties.warning():
            say(warning)


def needs_own_pass(spec: PruneSpec) -> bool:
    """Whether a resolved spec needs a calibration pass of its own rather than the shared dense statistics."""
    return spec.propagate == "pruned" or METHODS[spec.method].updates_weights


def check_against(base: Checkpoint, spec: PruneSpec) -> None:
    """Raise ValueError for a resolved spec that this checkpoint cannot carry out."""
    if spec.pattern is not None:
        _, group = n_of_m(spec.pattern)
        for name, header in base.tensors.items():
            linear = name.removesuffix(".weight").split(".", 3)[-1]
            if linear in LINEARS and header.shape[1] % group:
                raise ValueError(
                    f"pattern {spec.pattern}: {name} has {header.shape[1]} inputs, "
                    f"not a multiple of {group}; use an unstructured sparsity."
                )
    if spec.path is not None:
        Counterparts.open(base, spec.path)
    if spec.blocks is not None and spec.blocks >= base.num_layers:
        raise ValueError(f"blocks: cannot remove {spec.blocks} of {base.num_layers} blocks; leave at least one.")


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {device!r} cannot be used ({reason}); use 'cpu' or an existing GPU.") from None


@dataclass(frozen=True, eq=False)
class _PlannedJob:
    """One job with everything that is decided before its weights are pruned."""

    base: Checkpoint
    job: PruneJob
    spec: PruneSpec
    """The job's, resolved."""
    statistics: JobStatistics
    device: str
    started: float

    @cached_property
    def requested(self) -> Requested:
        """Sparsities per block and part; empty for a method that masks nothing."""
        if self.spec.allocator is None:
            return []
        return ALLOCATORS[self.spec.allocator].sparsities(self.spec, self.base.part_sizes, self.statistics.layers)

    @cached_property
    def pair(self) -> Counterparts | None:
        """The base and the checkpoint whose weights become the patch's, if the method reads one."""
        return None if self.spec.path is None else Counterparts.open(self.base, self.spec.path)

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """The blocks that stay."""
        if self.pair is not None:
            return self.pair.kept_layers
        keep_blocks = METHODS[self.spec.method].keep_blocks
        if keep_blocks is None:
            return tuple(range(self.base.num_layers))
        return keep_blocks(self.statistics.layers["block_influence"], self.spec)

    def open(self, folders: ExitStack) -> PatchWriter:
        folder = folders.enter_context(unfinished_copy(self.job.destination))
        return folders.enter_context(PatchWriter(folder, self.base))

    def count_ties(self) -> Ties:
        return Ties(self.spec, sum(map(sum, self.base.part_sizes.values())))

    def sparsity(self, layer: int) -> dict[str, float]:
        """The requested sparsity of each linear of a block."""
        return {linear: self.requested[layer][part] for part, linears in PARTS.items() for linear in linears}

    def finish(self, writer: PatchWriter) -> Manifest:
        """Write the manifest, and let the folder appear."""
        sizes = self.base.part_sizes.values()
        total = sum(map(sum, sizes))
        removed = sum(each[layer] for each in sizes for layer in range(len(each)) if layer not in self.kept)
        realised = (writer.zeros + removed) / total
        requested = self.spec.sparsity if self.spec.sparsity is not None else removed / total
        draft = Manifest(
            payload=self.job.payload,
            base=self.base.digest(),
            spec=self.spec,
            kept_layers=self.kept,
            layers=tuple(writer.layers),
            requested=requested if self.pair is None else realised,
            realised=realised,
            tensors={},
            canary=Canary((), ()),
            calibration=self.statistics.windows,
            evidence=self.statistics.layers,
            files={},
            seconds=round(time.monotonic() - self.started, 3),
            peak_memory_bytes=peak_memory(self.device),
        )
        manifest = writer.finish(draft, self.device)
        if self.pair is not None and manifest.tensors != self.pair.result_digests():
            raise ValueError(f"{self.spec.path}: changed while it was read; leave it alone and try again.")
        move_into_place(writer.folder, self.job.destination)
        return manifest


Chooser = Callable[[BlockView], PrunedBlock]


def _dense_chooser(job: _PlannedJob) -> Chooser:
    """Masks from the shared dense statistics; group 'model' has one stream of masks over all layers."""
    norms = job.statistics.norms

    def on_device(layer: int) -> dict[str, torch.Tensor]:
        return {linear: value.to(job.device) for linear, value in norms[layer].items()} if norms else {}

    if job.spec.group == "model":
        masks = _model_masks(job, on_device)
        return lambda seen: PrunedBlock({linear: next(masks) for linear in seen.weights}, {})
    return lambda seen: prune_by_score(job.spec, seen.weights, on_device(seen.index), job.sparsity(seen.index))


def _model_masks(job: _PlannedJob, norms: Callable[[int], dict[str, torch.Tensor]]) -> Iterator[torch.Tensor]:
    """Keep masks of all linears of all layers, ranked together; reads the weights three times, one linear at a time."""

    def scores() -> Iterator[torch.Tensor]:
        for layer in range(job.base.num_layers):
            here = norms(layer)
            for linear in LINEARS:
                weight = read_tensor(job.base.tensors[f"{layer_prefix(layer)}{linear}.weight"]).to(job.device)
                yield score(job.spec, weight, here.get(linear))

    total = sum(map(sum, job.base.part_sizes.values()))
    assert job.spec.sparsity is not None, "resolve() sets sparsity"
    assert job.spec.selection is not None, "resolve() sets selection"
    if job.spec.sparsity == 0:
        return (torch.ones_like(each, dtype=torch.bool) for each in scores())
    return cut(scores(), cutoff(scores, int(total * job.spec.sparsity), job.spec.selection))


def _prune_in_own_pass(job: _PlannedJob, say: Progress) -> Manifest:
    """A calibration pass for one job, whose pruned blocks feed the next where its spec says so."""
    spec, updates_weights = job.spec, METHODS[job.spec.method].updates_weights
    with ExitStack() as folders:
        writer, ties = job.open(folders), job.count_ties()

        def visit(seen: BlockView) -> dict[str, torch.Tensor]:
            assert seen.statistics is not None
            sparsity = job.sparsity(seen.index)
            if updates_weights:
                pruned = prune_by_solver(spec, seen.weights, seen.statistics, sparsity)
            else:
                pruned = prune_by_score(spec, seen.weights, seen.statistics.all_norms(), sparsity)
                ties.add(seen.index, seen.weights, pruned.keep, sparsity)
            return writer.add(seen.index, seen.weights, pruned, job.requested[seen.index])

        settings = PassSettings(
            job.base,
            job.statistics.calibration,
            job.device,
            rerun=spec.propagate == "pruned",
            hessians=updates_weights,
        )
        run_pass(settings, visit, lambda text: say(f"{describe(spec)}: {text}"))
        _warn([ties], say)
        return job.finish(writer)


def _compare(job: _PlannedJob, pair: Counterparts, say: Progress) -> Manifest:
    """The patch that turns the base into the checkpoint of a job."""
    pair.result_digests()  # what the patch must give is settled before a weight is read
    say(f"{describe(job.spec)}: comparing with the base")
    with ExitStack() as folders:
        writer = job.open(folders)
        write_differences(pair, writer)
        return job.finish(writer)
