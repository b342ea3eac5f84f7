"""What allocators and ShortGPT decide by, gathered once per (weights, data) and shared by every job that
needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from pruning.allocators.alphapruning import layer_alphas
from pruning.allocators.layerif import influence_scores
from pruning.allocators.sparsities import influence_evidence
from pruning.methods.scores import wanda
from pruning.model.calibration import load_windows, windows_digest
from pruning.model.checkpoint import Checkpoint
from pruning.model.passes import Calibration, Pass, Visit, computing_dtype, run_pass
from pruning.spec import CalibrationSpec, PruneSpec


@dataclass(frozen=True)
class Evidence:
    """What one job may look at. `layers` are per-layer statistics by name, `windows` digests of token windows
    by use.
    """

    layers: dict[str, list[float]]
    windows: dict[str, str]
    norms: list[dict[str, torch.Tensor]]
    calibration: Calibration | None


@dataclass(frozen=True)
class DenseStatistics:
    """One calibration pass over the unpruned model.

    `norms[layer][linear]` [d_in] float32 on the host, `influence[layer]` the block influence,
    `outliers[m][layer]` the percentage of Wanda scores above m times their mean (OWL, arXiv 2310.05175,
    equation 1).
    """

    norms: list[dict[str, torch.Tensor]] = field(default_factory=list)
    influence: list[float] = field(default_factory=list)
    outliers: dict[float, list[float]] = field(default_factory=dict)


def gather(
    base: Checkpoint, specs: Sequence[PruneSpec], *, device: str, progress: Callable[[str], None]
) -> list[Evidence]:
    """One Evidence per resolved spec; what several specs need is computed once."""
    calibrations = {spec: _calibration(base, spec) for s in specs if (spec := s.calibration) is not None}
    dense: dict[CalibrationSpec, DenseStatistics] = {}
    for calibration, loaded in calibrations.items():
        readers = [spec for spec in specs if spec.calibration == calibration and _reads_dense(spec)]
        if readers:
            multiples = [spec.owl_m for spec in readers if spec.owl_m is not None]
            dense[calibration] = dense_statistics(base, loaded, multiples, device=device, progress=progress)
    alphas: dict[str, list[float]] = {}
    for fit in {spec.alpha_fit for spec in specs if spec.alpha_fit is not None}:
        alphas[fit] = layer_alphas(base, fit, device=device, progress=progress)
    return [_evidence(base, spec, calibrations, dense, alphas, device=device, progress=progress) for spec in specs]


def _calibration(base: Checkpoint, spec: CalibrationSpec) -> Calibration:
    return Calibration(load_windows(spec, base), computing_dtype(spec.compute, base))


def _reads_dense(spec: PruneSpec) -> bool:
    return (
        (spec.propagate == "dense" and spec.method != "sparsegpt") or spec.allocator == "owl" or spec.blocks is not None
    )


def _evidence(
    base: Checkpoint,
    spec: PruneSpec,
    calibrations: Mapping[CalibrationSpec, Calibration],
    dense: Mapping[CalibrationSpec, DenseStatistics],
    alphas: Mapping[str, list[float]],
    *,
    device: str,
    progress: Callable[[str], None],
) -> Evidence:
    layers: dict[str, list[float]] = {}
    windows: dict[str, str] = {}
    loaded = norms = None
    if spec.calibration is not None:
        loaded = calibrations[spec.calibration]
        windows["calibration"] = windows_digest(loaded.windows)
        statistics = dense.get(spec.calibration)
        if statistics is not None:
            norms = statistics.norms
            if spec.owl_m is not None:
                layers["outliers"] = statistics.outliers[spec.owl_m]
            if spec.blocks is not None:
                layers["block_influence"] = statistics.influence
    if spec.alpha_fit is not None:
        layers["alpha"] = alphas[spec.alpha_fit]
    if spec.allocator == "layerif":
        scores, used = influence_scores(base, spec, device=device, progress=progress)
        layers |= influence_evidence(spec, scores)
        windows |= used
    return Evidence(layers, windows, norms or [], loaded)


def dense_statistics(
    base: Checkpoint,
    calibration: Calibration,
    outlier_multiples: Iterable[float],
    *,
    device: str,
    progress: Callable[[str], None],
) -> DenseStatistics:
    found = DenseStatistics(outliers={multiple: [] for multiple in sorted(set(outlier_multiples))})

    def look(visit: Visit) -> dict[str, torch.Tensor]:
        assert visit.statistics is not None
        assert visit.influence is not None
        norms = visit.statistics.all_norms()
        found.norms.append({linear: value.cpu() for linear, value in norms.items()})
        found.influence.append(visit.influence)
        for multiple, share in outlier_shares(visit.weights, norms, tuple(found.outliers)).items():
            found.outliers[multiple].append(share)
        return {}

    run_pass(Pass(base, calibration, device), look, lambda text: progress(f"dense statistics: {text}"))
    return found


def outlier_shares(
    weights: Mapping[str, torch.Tensor], norms: Mapping[str, torch.Tensor], multiples: Iterable[float]
) -> dict[float, float]:
    """Percentage of a block's Wanda scores, all linears together, that exceed m times their mean; 0..100 per
    m.

    The scores are formed twice rather than held: together they are as large as the block in float32.
    """
    wanted = tuple(multiples)
    if not wanted:
        return {}
    count = sum(weight.numel() for weight in weights.values())
    mean = sum(float(wanda(weight, norms[name]).sum(dtype=torch.float64)) for name, weight in weights.items()) / count
    above = dict.fromkeys(wanted, 0)
    for name, weight in weights.items():
        scores = wanda(weight, norms[name])
        for multiple in wanted:
            above[multiple] += int((scores > multiple * mean).sum())
    return {multiple: 100 * hits / count for multiple, hits in above.items()}
