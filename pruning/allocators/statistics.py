"""Layer statistics, by which allocators and block removal decide, and the input norms that masks are made from:
gathered once per weights and data, and shared by all jobs that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from pruning.allocators import ALLOCATORS
from pruning.allocators.allocator import BlockStatistic
from pruning.allocators.shared_passes import block_statistic, reads_activations, reads_dense_activations
from pruning.methods import METHODS
from pruning.model.calibration import load_windows, windows_digest
from pruning.model.checkpoint import Checkpoint
from pruning.model.passes import BlockView, Calibration, PassSettings, computing_dtype, run_pass
from pruning.spec import CalibrationSpec, PruneSpec

Progress = Callable[[str], None]


@dataclass(frozen=True)
class JobStatistics:
    """The statistics that one job may use.

    `layers` holds the layer statistics by name, `windows` the digests of the token windows by field of PruneSpec,
    `norms[layer][linear]` the dense input norms [d_in], for jobs whose masks follow from them.
    """

    layers: dict[str, list[float]]
    windows: dict[str, str]
    norms: list[dict[str, torch.Tensor]]
    calibration: Calibration | None


@dataclass(frozen=True)
class DensePass:
    """What one pass over the unpruned model found: by layer, the input norms of its linears ([d_in] float32 on the
    host) and its block influence, both empty without calibration, and the block statistics asked for.
    """

    norms: list[dict[str, torch.Tensor]] = field(default_factory=list)
    influence: list[float] = field(default_factory=list)
    measured: dict[BlockStatistic, list[float]] = field(default_factory=dict)


def gather(base: Checkpoint, specs: Sequence[PruneSpec], *, device: str, progress: Progress) -> list[JobStatistics]:
    """The statistics of each resolved spec; what several specs need is computed once."""
    sources = dict.fromkeys(spec.calibration for spec in specs if spec.calibration is not None)
    calibrations = {source: _calibration(base, source) for source in sources}
    passes: dict[CalibrationSpec | None, DensePass] = {}
    for source, loaded in calibrations.items():
        readers = [spec for spec in specs if spec.calibration == source and reads_dense_activations(spec)]
        if readers:
            activations = _statistics([spec for spec in readers if reads_activations(spec.allocator)])
            passes[source] = dense_pass(base, loaded, activations, device=device, progress=progress)
    weights = _statistics([spec for spec in specs if not reads_activations(spec.allocator)])
    if weights:
        passes[None] = dense_pass(base, None, weights, device=device, progress=progress)
    return [_of_job(base, spec, calibrations, passes, device=device, progress=progress) for spec in specs]


def _statistics(specs: Sequence[PruneSpec]) -> list[BlockStatistic]:
    return [found for spec in specs if (found := block_statistic(spec)) is not None]


def _calibration(base: Checkpoint, source: CalibrationSpec) -> Calibration:
    return Calibration(load_windows(source, base), computing_dtype(source.compute, base))


def _of_job(
    base: Checkpoint,
    spec: PruneSpec,
    calibrations: dict[CalibrationSpec, Calibration],
    passes: dict[CalibrationSpec | None, DensePass],
    *,
    device: str,
    progress: Progress,
) -> JobStatistics:
    layers: dict[str, list[float]] = {}
    windows: dict[str, str] = {}
    norms: list[dict[str, torch.Tensor]] = []
    loaded = None
    if spec.calibration is not None:
        loaded = calibrations[spec.calibration]
        windows["calibration"] = windows_digest(loaded.windows)
        if spec.calibration in passes:
            norms = passes[spec.calibration].norms
    statistic = block_statistic(spec)
    if statistic is not None:
        source = spec.calibration if reads_activations(spec.allocator) else None
        layers[statistic.name] = passes[source].measured[statistic]
    if METHODS[spec.method].removes_blocks:
        layers["block_influence"] = passes[spec.calibration].influence
    gradients = ALLOCATORS[spec.allocator].gradient_statistics if spec.allocator is not None else None
    if gradients is not None:
        found, used = gradients(base, spec, device, progress)
        layers |= {name: list(values) for name, values in found.items()}
        windows |= used
    return JobStatistics(layers, windows, norms, loaded)


def dense_pass(
    base: Checkpoint,
    calibration: Calibration | None,
    statistics: Iterable[BlockStatistic],
    *,
    device: str,
    progress: Progress,
) -> DensePass:
    """One pass over the unpruned model; without calibration it reads weights only."""
    found = DensePass(measured={statistic: [] for statistic in statistics})

    def look(seen: BlockView) -> dict[str, torch.Tensor]:
        norms = {} if seen.statistics is None else seen.statistics.all_norms()
        if seen.influence is not None:
            found.norms.append({linear: value.cpu() for linear, value in norms.items()})
            found.influence.append(seen.influence)
        for statistic, values in found.measured.items():
            values.append(statistic.measure(seen.weights, norms))
        return {}

    title = "weight statistics" if calibration is None else "dense statistics"
    run_pass(PassSettings(base, calibration, device), look, lambda text: progress(f"{title}: {text}"))
    return found
