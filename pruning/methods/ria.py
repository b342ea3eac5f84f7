"""RIA (Zhang et al., ICLR 2024): the importance of a weight relative to its row and column, times its input's norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pruning.methods.method import Method
from pruning.spec import Fraction, Knob, PruneSpec, always

if TYPE_CHECKING:
    from torch import Tensor

_TINY: Final = float(np.finfo(np.float32).tiny)


def score(weight: Tensor, norms: Tensor, spec: PruneSpec) -> Tensor:
    """(|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) * ||X_j||^a (equations 2-3), where a is `ria_power`.

    A row or column of zeros has no relative importance: its entries score 0 where upstream divides 0 by 0.
    """
    assert spec.ria_power is not None, "resolve() sets ria_power"
    size = weight.float().abs()
    columns = size.sum(dim=0, keepdim=True).clamp_min_(_TINY)
    rows = size.sum(dim=1, keepdim=True).clamp_min_(_TINY)
    return (size / columns + size / rows).mul_(norms.pow(spec.ria_power))


METHOD: Final = Method(
    "ria",
    calibrated=True,
    score=score,
    knobs={"ria_power": Knob("exponent of the activation norm; ria", Fraction(0, 4), always(0.5))},
)
