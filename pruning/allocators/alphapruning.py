"""AlphaPruning's layer statistic: how heavy-tailed a weight matrix's spectrum is (Lu et al., arXiv
2410.10912).

The smaller the power-law exponent alpha of the eigenvalues of W^T W, the better trained the layer is taken to
be and the less it is pruned. Needs weights only, no data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pruning.model.architecture import LINEARS
from pruning.model.checkpoint import Checkpoint
from pruning.model.passes import Pass, Visit, run_pass

_HISTOGRAM_BINS = 100
_PEAK_SPAN = 1.5


def layer_alphas(base: Checkpoint, fit: str, *, device: str, progress: Callable[[str], None]) -> list[float]:
    """Mean alpha of each block's linears."""
    alphas: list[float] = []

    def look(visit: Visit) -> dict[str, torch.Tensor]:
        each = [power_law_alpha(squared_singular_values(visit.weights[linear]), fit) for linear in LINEARS]
        alphas.append(sum(each) / len(each))
        return {}

    run_pass(Pass(base, None, device), look, lambda text: progress(f"spectra: {text}"))
    return alphas


def squared_singular_values(weight: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of the smaller Gram matrix of W, ascending, float64: several times cheaper than an SVD."""
    wide = weight.to(torch.float64)
    gram = wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide
    return torch.linalg.eigvalsh(gram).clamp_min_(0)


def power_law_alpha(eigenvalues: torch.Tensor, fit: str) -> float:
    """Hill estimate 1 + n / sum log(lambda / lambda_min) of the tail that begins at lambda_min (equation 2).

    `median` begins at the middle eigenvalue (upstream's alpha_mid); `peak` tries every eigenvalue up to 1.5
    times the peak of the log-density and takes the one whose tail fits best (Kolmogorov-Smirnov), as
    upstream's default alpha_peak does: its lower bound, .95 of the peak, compares a logarithm with an
    eigenvalue and so never binds. A spectrum without spread has no tail: infinity is avoided by calling it
    alpha of its machine-precision spread.
    """
    values = eigenvalues.double().clamp_min(torch.finfo(torch.float64).tiny)
    logs, count = values.log(), len(values)
    tails = logs.flip(0).cumsum(0).flip(0)  # tails[i] = sum of logs[i:]
    sizes = torch.arange(count, 0, -1, dtype=torch.float64, device=values.device)
    spreads = (tails - sizes * logs).clamp_min(sizes * torch.finfo(torch.float64).eps)
    alphas = 1 + sizes / spreads
    if fit == "median":
        return float(alphas[count // 2])
    logs10 = values.log10()
    counts = torch.histc(logs10.cpu(), _HISTOGRAM_BINS)
    edges = torch.linspace(float(logs10.min()), float(logs10.max()), _HISTOGRAM_BINS + 1, dtype=torch.float64)
    peak = 10 ** float(edges[int(counts.argmax())])
    candidates = [i for i in range(count - 1) if float(values[i]) <= _PEAK_SPAN * peak] or [0]
    return float(alphas[min(candidates, key=lambda i: _misfit(values[i:], float(alphas[i])))])


def _misfit(tail: torch.Tensor, alpha: float) -> float:
    """Kolmogorov-Smirnov distance between the tail and the power law with this alpha."""
    empirical = torch.arange(len(tail), dtype=torch.float64, device=tail.device) / len(tail)
    return float((1 - (tail / tail[0]) ** (1 - alpha) - empirical).abs().max())
