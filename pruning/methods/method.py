"""What a pruning method is: a row of the table in methods/__init__.py. Imports no torch, so that a plan can read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pruning.spec import Knob, PruneSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Method:
    """A pruning method, which has one of `score`, `solve`, `keep_blocks` and `reads_checkpoint`; only 'dense' has none.

    The functions get a resolved spec, in which every knob that matters is set, and must be pure.
    """

    name: str
    calibrated: bool = False
    """Whether it reads the activations of calibration data."""
    score: Callable[[Tensor, Tensor, PruneSpec], Tensor] | None = None
    """(weight [d_out, d_in], norms, spec) -> importance [d_out, d_in]: float32, non-negative, larger = more important.

    `norms` is the L2 norm of each input over all calibration tokens, [d_in] float32, and empty, [0], unless
    `calibrated`. What is dropped is decided by the spec's `group`, `selection` or `pattern`.
    """
    solve: Callable[[Tensor, Any, float, PruneSpec], tuple[Tensor, Tensor]] | None = None
    """(weight [d_out, d_in], what `prepare` made, sparsity, spec) -> the keep mask and the updated weights, like it.

    It is called for a positive sparsity or a pattern only, and must not change what `prepare` made.
    """
    prepare: Callable[[Tensor, PruneSpec], Any] = lambda hessian, spec: hessian
    """(Hessian, spec) -> what all linears that read the same input share; called once for them.

    The Hessian is the sum of x x^T over all calibration tokens, [d_in, d_in] float32; it may be overwritten.
    """
    keep_blocks: Callable[[Sequence[float], PruneSpec], tuple[int, ...]] | None = None
    """(block influence by layer, spec) -> the blocks that stay, ascending; `spec.blocks` says how many go."""
    reads_checkpoint: bool = False
    """Whether its weights are those of another checkpoint, and it so takes a `path` and a `label`."""
    group: str = "matrix"
    """Which weights are ranked together by default."""
    selection: str = "threshold"
    """Whether exactly the requested count falls by default, or everything up to its threshold."""
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    """Its own knobs: name of the field of PruneSpec -> what it may be, in order of resolution."""
    check: Callable[[PruneSpec], None] = lambda spec: None
    """Raises ValueError for a spec, filled in, whose fields do not go together."""

    @property
    def masks(self) -> bool:
        """Whether it drops single weights, and so takes a sparsity, an allocator or an N:M pattern."""
        return self.score is not None or self.solve is not None

    @property
    def updates_weights(self) -> bool:
        """Whether it changes the weights that it keeps. Its calibration pass gathers Hessians."""
        return self.solve is not None

    @property
    def removes_blocks(self) -> bool:
        """Whether it drops whole blocks, and so takes `blocks` instead of a sparsity."""
        return self.keep_blocks is not None
