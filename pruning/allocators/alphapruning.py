"""AlphaPruning (Lu et al., arXiv 2410.10912): blocks whose weight spectra have heavier tails are pruned less.

The smaller the power-law exponent alpha of the eigenvalues of W^T W, the better trained the layer is taken to
be. Needs weights only, no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from pruning.allocators.allocator import (
    RANGE_KNOBS,
    Allocator,
    Requested,
    Sizes,
    Statistics,
    block_sizes,
    bounds_of,
    epsilon_knob,
    same_in_all_parts,
    target_of,
)
from pruning.allocators.formulas import linear_ratios, proportional
from pruning.spec import Choice, Knob, PruneSpec, always

if TYPE_CHECKING:
    from torch import Tensor

_HISTOGRAM_BINS: Final = 100
_PEAK_SPAN: Final = 1.5


@dataclass(frozen=True)
class MeanAlpha:
    """Mean power-law exponent of a block's linears."""

    fit: str
    name = "alpha"

    def measure(self, weights: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> float:
        each = [power_law_alpha(squared_singular_values(weight), self.fit) for weight in weights.values()]
        return sum(each) / len(each)


def squared_singular_values(weight: Tensor) -> Tensor:
    """Eigenvalues of the smaller Gram matrix of W, ascending, float64: several times cheaper than an SVD."""
    import torch

    wide = weight.double()
    gram = wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide
    return torch.linalg.eigvalsh(gram).clamp_min_(0)


def power_law_alpha(eigenvalues: Tensor, fit: str) -> float:
    """Hill estimate 1 + n / sum log(lambda / lambda_min) of the tail that begins at lambda_min (equation 2).

    `median` begins at the middle eigenvalue (upstream's alpha_mid). `peak` tries every eigenvalue up to 1.5
    times the peak of the log-density and takes the one whose tail fits best (Kolmogorov-Smirnov), as upstream's
    default alpha_peak does: its lower bound, .95 of the peak, compares a logarithm with an eigenvalue and so
    never binds. The spread of a tail has a floor at machine precision, so that alpha stays finite.
    """
    import torch

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


def _misfit(tail: Tensor, alpha: float) -> float:
    """Kolmogorov-Smirnov distance between the tail and the power law with this alpha."""
    import torch

    empirical = torch.arange(len(tail), dtype=torch.float64, device=tail.device) / len(tail)
    return float((1 - (tail / tail[0]) ** (1 - alpha) - empirical).abs().max())


def sparsities(spec: PruneSpec, sizes: Sizes, statistics: Statistics) -> Requested:
    """Ratios linear in alpha (equation 3), scaled to meet the target."""
    ratios = linear_ratios(statistics[MeanAlpha.name], epsilon=cast(float, spec.alpha_epsilon))
    return same_in_all_parts(proportional(ratios, block_sizes(sizes), target_of(spec), bounds=bounds_of(spec)))


ALLOCATOR: Final = Allocator(
    "alphapruning",
    sparsities,
    block_statistic=lambda spec: MeanAlpha(str(spec.alpha_fit)),
    knobs={
        **RANGE_KNOBS,
        "alpha_fit": Knob("where the power-law tail begins; alphapruning", Choice(("peak", "median")), always("peak")),
        "alpha_epsilon": epsilon_knob(always(0.3)),
    },
)
