"""LayerIF's scores: the influence of each training sample on the validation loss, through each part of each block.

With the identity Hessian (arXiv 2604.25098, section 3; TracIn, arXiv 2002.08484) the score of sample k for a
linear is <v, g_k>, the inner product of the mean validation gradient and the sample's. With DataInf (Kwon et
al., arXiv 2310.00902, equation 5) it is <H^-1 v, g_k> in closed form, per weight matrix. Both have TracIn's
sign: positive = helps validation.

The mean gradients of all linears take 4 bytes per block weight, 28 GB for an 8 B model. They stay on a GPU that has
twice as much free. Else memory is that of a gradient sweep plus one block's gradients, and those of the others lie in a
temporary folder, which each chunk of the sweep reads once, and writes once while they are summed. Scores are kept by
content (layerif_cache.py), so one computation serves every sparsity.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pruning.allocators.layerif_cache import InfluenceScores, computing, load_scores, save_scores
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
    with computing(identity, progress):
        known = load_scores(identity)
        if known is None:
            known = scores_of(GradientSweep(base, dtype, device), hessian, train, validation, progress)
            save_scores(identity, known)
    return known, used


def scores_of(
    sweep: GradientSweep, hessian: str, train: np.ndarray, validation: np.ndarray, progress: Progress
) -> InfluenceScores:
    """Scores of windows, int64 [samples, tokens], with the Hessian 'identity' or 'datainf'."""
    with unfinished_folder(Path(tempfile.gettempdir()), "prunesweep-gradients") as scratch:
        estimate = _datainf if hessian == "datainf" else _identity
        return _by_part(estimate(sweep, train, validation, scratch, progress))


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


class _MatrixSums:
    """One float32 matrix per linear and layer, at first zero: in memory those of one layer at least, in files the rest.

    A sweep passes through a layer's linears again and again before it comes to the next, so each matrix is read once,
    and written once if it has changed.
    """

    def __init__(self, folder: Path, all_in_memory: bool) -> None:
        self._folder, self._all_in_memory = folder, all_in_memory
        self._layer = -1
        self._held: dict[tuple[int, str], torch.Tensor] = {}
        self._changed: set[tuple[int, str]] = set()

    def add(self, like: LinearGradient, deltas: torch.Tensor, inputs: torch.Tensor, share: float) -> None:
        """Add `share` times deltas^T inputs to the matrix of `like`."""
        self.of(like).addmm_(deltas.flatten(0, 1).T, inputs.flatten(0, 1), alpha=share)
        self._changed.add((like.layer, like.linear))

    def of(self, like: LinearGradient) -> torch.Tensor:
        """The matrix of the layer and linear of `like`, [d_out, d_in], where its inputs are."""
        key, device = (like.layer, like.linear), like.inputs.device
        if like.layer != self._layer and not self._all_in_memory:
            self._put_away()
        self._layer = like.layer
        if key not in self._held:
            file = self._file(key)
            if file.is_file():
                self._held[key] = torch.from_numpy(np.load(file)).to(device)
            else:
                shape = like.deltas.shape[-1], like.inputs.shape[-1]
                self._held[key] = torch.zeros(shape, dtype=torch.float32, device=device)
        return self._held[key]

    def _put_away(self) -> None:
        self._folder.mkdir(exist_ok=True)
        for key in self._changed:
            np.save(self._file(key), self._held[key].cpu().numpy())
        self._held.clear()
        self._changed.clear()

    def _file(self, key: tuple[int, str]) -> Path:
        return self._folder / f"{key[0]:05d}.{key[1]}.npy"


def _has_room(sweep: GradientSweep) -> bool:
    """Whether the device is a GPU with room for twice the gradients of all linears."""
    if torch.device(sweep.device).type != "cuda":
        return False
    weights = sum(sum(sizes) for sizes in sweep.base.part_sizes.values())
    return torch.cuda.mem_get_info(sweep.device)[0] > 2 * 4 * weights


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
    del target  # before the next sum of its size
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
) -> _MatrixSums:
    """(1/n) sum_i w_i g_i of every linear; every w_i is 1 if `weights` is None."""
    matrices = _MatrixSums(folder, _has_room(sweep))

    def add(gradient: LinearGradient) -> None:
        deltas, inputs = gradient.deltas.float(), gradient.inputs.float()
        if weights is not None:
            factors = torch.from_numpy(weights[gradient.linear][gradient.layer, gradient.samples])
            deltas = deltas * factors.to(deltas).reshape(-1, 1, 1)
        matrices.add(gradient, deltas, inputs, 1 / len(windows))

    sweep.run(windows, add, progress)
    return matrices


def _products(sweep: GradientSweep, windows: np.ndarray, target: _MatrixSums, progress: Progress) -> Table:
    """<target, g_i> of every linear: sum_t delta_t . (target x_t), without forming g_i."""
    table = _empty(sweep, windows)

    def multiply(gradient: LinearGradient) -> None:
        image = gradient.inputs.float() @ target.of(gradient).T
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
