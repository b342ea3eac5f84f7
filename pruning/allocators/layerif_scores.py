"""LayerIF's scores: the influence of each training sample on the validation loss, through each part of each block.

With the identity Hessian (arXiv 2604.25098, section 3; TracIn, arXiv 2002.08484) the score of sample k for a
linear is <v, g_k>, the inner product of the mean validation gradient and the sample's. With DataInf (Kwon et
al., arXiv 2310.00902, equation 5) it is <H^-1 v, g_k> in closed form, per weight matrix. Both have TracIn's
sign: positive = helps validation.

Memory is that of a gradient sweep plus two float32 matrices of one linear's size: the mean gradients of all
linears lie in a temporary folder (4 bytes per block weight, 28 GB for an 8 B model) and are read one linear at a
time. Scores are kept by content (layerif_cache.py), so one computation serves every sparsity.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pruning.allocators.layerif_cache import InfluenceScores, load_scores, save_scores
from pruning.files import unfinished_folder
from pruning.model.architecture import LINEARS, PARTS
from pruning.model.calibration import load_windows, load_windows_apart, windows_digest
from pruning.model.checkpoint import Checkpoint
from pruning.model.gradients import GradientSweep, LinearGradient
from pruning.model.passes import computing_dtype
from pruning.spec import PruneSpec

Progress = Callable[[str], None]
Table = dict[str, np.ndarray]
"""linear -> float64 [layers, samples]."""


def influence_scores(
    base: Checkpoint, spec: PruneSpec, *, device: str, progress: Progress
) -> tuple[InfluenceScores, dict[str, str]]:
    """Scores of a resolved layerif spec, from an earlier run or computed, and the digests of the windows used.

    Raises ValueError when training and validation windows are the same.
    """
    assert spec.influence_train is not None
    assert spec.influence_validation is not None
    train, validation = load_windows(spec.influence_train, base), _validation_windows(base, spec, progress)
    used = {"influence_train": windows_digest(train), "influence_validation": windows_digest(validation)}
    if used["influence_train"] == used["influence_validation"]:
        raise ValueError("influence_validation: the same windows as the training data; give other data.")
    dtype = computing_dtype(spec.influence_train.compute, base)
    hessian = str(spec.layerif_hessian)
    identity = {**used, "weights": base.digest(), "hessian": hessian, "dtype": str(dtype)}
    known = load_scores(identity)
    if known is None:
        with unfinished_folder(Path(tempfile.gettempdir()), "prunesweep-gradients") as scratch:
            estimate = _datainf if hessian == "datainf" else _identity
            sweep = GradientSweep(base, dtype, device)
            known = _by_part(estimate(sweep, train, validation, scratch, progress))
        save_scores(identity, known)
    return known, used


def _validation_windows(base: Checkpoint, spec: PruneSpec, progress: Progress) -> np.ndarray:
    wanted, train = spec.influence_validation, spec.influence_train
    assert wanted is not None
    assert train is not None
    if not wanted.apart:
        return load_windows(wanted, base)
    windows = load_windows_apart(wanted, train, base)
    if len(windows) < wanted.samples:
        progress(f"validation data: {len(windows)} windows of {wanted.samples}, all that the training data leave")
    return windows


@dataclass(frozen=True)
class _MatrixFolder:
    """One float32 matrix per linear and layer, in files; a matrix without a file is zero."""

    folder: Path

    def read(self, like: LinearGradient) -> torch.Tensor:
        file = self._file(like.layer, like.linear)
        if not file.is_file():
            return like.inputs.new_zeros(like.deltas.shape[-1], like.inputs.shape[-1], dtype=torch.float32)
        return torch.from_numpy(np.load(file)).to(like.inputs.device)

    def write(self, like: LinearGradient, matrix: torch.Tensor) -> None:
        self.folder.mkdir(exist_ok=True)
        np.save(self._file(like.layer, like.linear), matrix.cpu().numpy())

    def _file(self, layer: int, linear: str) -> Path:
        return self.folder / f"{layer:05d}.{linear}.npy"


def _identity(
    sweep: GradientSweep, train: np.ndarray, validation: np.ndarray, scratch: Path, progress: Progress
) -> Table:
    target = _weighted_sum(sweep, validation, None, scratch / "validation", progress)
    return _products(sweep, train, target, progress)


def _datainf(
    sweep: GradientSweep, train: np.ndarray, validation: np.ndarray, scratch: Path, progress: Progress
) -> Table:
    """DataInf per weight matrix: the sweeps of `_identity`, and three more for norms, a weighted sum and its products.

    With v the mean validation gradient and n training gradients g_i: damping = .1 mean_i mean(g_i^2) and
    H^-1 v = (v - (1/n) sum_i <v, g_i> / (damping + |g_i|^2) g_i) / damping.
    """
    target = _weighted_sum(sweep, validation, None, scratch / "validation", progress)
    products = _products(sweep, train, target, progress)
    squares = _squared_norms(sweep, train, progress)
    sizes = {linear: sweep.base.tensors[f"model.layers.0.{linear}.weight"].numel for linear in LINEARS}
    damping = {linear: 0.1 * squares[linear].mean(axis=1, keepdims=True) / sizes[linear] for linear in LINEARS}
    share = {
        linear: np.divide(
            products[linear],
            damping[linear] + squares[linear],
            out=np.zeros_like(products[linear]),
            where=squares[linear] > 0,
        )
        for linear in LINEARS
    }
    spread = _weighted_sum(sweep, train, share, scratch / "spread", progress)
    along = _products(sweep, train, spread, progress)
    # <H^-1 v, g_k> is linear in v and in the weighted sum, so H^-1 v itself is never formed.
    return {
        linear: np.divide(
            products[linear] - along[linear],
            damping[linear],
            out=np.zeros_like(products[linear]),
            where=damping[linear] > 0,
        )
        for linear in LINEARS
    }


def _weighted_sum(
    sweep: GradientSweep, windows: np.ndarray, weights: Table | None, folder: Path, progress: Progress
) -> _MatrixFolder:
    """(1/n) sum_i w_i g_i of every linear, on disk; every w_i is 1 if `weights` is None."""
    matrices = _MatrixFolder(folder)

    def add(gradient: LinearGradient) -> None:
        deltas, inputs = gradient.deltas.float(), gradient.inputs.float()
        if weights is not None:
            factors = torch.from_numpy(weights[gradient.linear][gradient.layer, gradient.samples])
            deltas = deltas * factors.to(deltas).reshape(-1, 1, 1)
        total = matrices.read(gradient)
        total.addmm_(deltas.flatten(0, 1).T, inputs.flatten(0, 1), alpha=1 / len(windows))
        matrices.write(gradient, total)

    sweep.run(windows, add, progress)
    return matrices


def _products(sweep: GradientSweep, windows: np.ndarray, target: _MatrixFolder, progress: Progress) -> Table:
    """<target, g_i> of every linear: sum_t delta_t . (target x_t), without forming g_i."""
    table = _empty(sweep, windows)

    def multiply(gradient: LinearGradient) -> None:
        image = gradient.inputs.float() @ target.read(gradient).T
        values = (image * gradient.deltas.float()).sum(dim=(1, 2), dtype=torch.float64)
        table[gradient.linear][gradient.layer, gradient.samples] = values.cpu().numpy()

    sweep.run(windows, multiply, progress)
    return table


def _squared_norms(sweep: GradientSweep, windows: np.ndarray, progress: Progress) -> Table:
    """|g_i|^2 of every linear; forms one sample's gradient matrix at a time."""
    table = _empty(sweep, windows)

    def measure(gradient: LinearGradient) -> None:
        for i, (deltas, inputs) in enumerate(zip(gradient.deltas.float(), gradient.inputs.float(), strict=True)):
            square = (deltas.T @ inputs).square().sum(dtype=torch.float64)
            table[gradient.linear][gradient.layer, gradient.samples.start + i] = float(square)

    sweep.run(windows, measure, progress)
    return table


def _empty(sweep: GradientSweep, windows: np.ndarray) -> Table:
    return {linear: np.zeros((sweep.base.num_layers, len(windows))) for linear in LINEARS}


def _by_part(table: Table) -> InfluenceScores:
    return InfluenceScores(
        {part: np.sum([table[linear] for linear in linears], axis=0).tolist() for part, linears in PARTS.items()}
    )
