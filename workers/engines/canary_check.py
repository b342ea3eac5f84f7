"""The last step of a swap's proof: does the engine compute what other code computed when the patch was made?

The digests prove that the weights are the right ones; the canary, that the running engine uses them: a stale output
head, repacked matrix or key-value block gives other log-probabilities.

The recorded ones are float32; an engine computes in bfloat16, say, and rounding alone moves them, by how much depends
on the variant. On SmolLM2-135M it is 0.03 nats for the dense model, and 0.36 once 70 % of the weights are pruned by
magnitude and the log-probabilities are large. So the tolerance follows the variant's own rounding, within two bounds.
"""

import math
from collections.abc import Sequence
from statistics import fmean, median

from pruning.model.checkpoint import Checkpoint
from pruning.patch.canary import rounded_logprobs
from pruning.patch.patch import Patch
from workers.engines.engine import EngineFault, VariantFault
from workers.failure import Failure, FailureKind

TOLERANCE = 0.1
"""The mean difference in nats that is always allowed, whatever rounding does."""

ROUNDINGS = 3.0
"""How many times its own rounding a variant may be off. Rounding is a matter of luck, too: of 9 variants, an engine was
0.4 to 1.6 times as far from float32 as transformers in the same dtype (docs/engine.md)."""

OF_SPREAD = 0.5
"""The largest tolerance, as a share of the recorded log-probabilities' mean distance from their median. An engine whose
answers have nothing to do with the weights is off by more than this distance, and must never pass."""


def mean_difference(ours: Sequence[float], recorded: Sequence[float]) -> float:
    """The mean absolute difference of two lists of log-probabilities, in nats; NaN if a value is."""
    return fmean(abs(one - other) for one, other in zip(ours, recorded, strict=True))


def tolerance(recorded: Sequence[float], rounded: Sequence[float]) -> float:
    """The largest `mean_difference` from `recorded` (float32) with which an engine is proved.

    `rounded` are the same log-probabilities, computed in the engine's dtype by other code. Where they are not finite
    because the dtype overflows, they tell nothing.
    """
    rounding = mean_difference(rounded, recorded)
    if not math.isfinite(rounding):
        return TOLERANCE
    middle = median(recorded)
    spread = fmean(abs(value - middle) for value in recorded)
    return max(TOLERANCE, min(ROUNDINGS * rounding, OF_SPREAD * spread))


class CanaryCheck:
    """The canaries of one engine, one variant after the other."""

    def __init__(self, dtype: str) -> None:
        """`dtype` is the engine's."""
        self._dtype = dtype
        self._refused: str | None = None
        """The last variant whose canary differed, if none was proved since."""

    def difference(self, got: Sequence[float], base: Checkpoint, made: Patch) -> float:
        """The `mean_difference` of the engine's log-probabilities from the first ones recorded, if that is a proof.

        Where more than `TOLERANCE` may be right for a variant, its rounding is needed. A patch without it (an earlier
        version's, or of a checkpoint that is run in another dtype than its own) has it computed here: seconds to a
        minute of the CPU, at such swaps only.

        Otherwise the variant cannot be evaluated: raises `VariantFault`, and the engine can go on. If it has refused
        another variant since it last proved one, raises `EngineFault`: the engine is suspect, and this variant is owed
        a sound one.
        """
        patch, canary, positions = made.folder.name, made.manifest.canary, len(got)
        recorded = canary.logprobs[:positions]
        difference = mean_difference(got, recorded)
        if not difference <= TOLERANCE:
            rounded: Sequence[float] = canary.rounded.get(self._dtype, ())
            if len(rounded) < positions:
                rounded = rounded_logprobs(base, made, self._dtype, positions)
            allowed = tolerance(recorded, rounded[:positions])
            if not difference <= allowed:
                rounding = mean_difference(rounded[:positions], recorded)
                raise self._refusal(
                    patch,
                    f"swap to {patch}: every tensor is in place, but the canary's log-probabilities differ by "
                    f"{difference:.3f} nats; {self._dtype} alone makes {rounding:.3f} of it, {allowed:.3f} are allowed",
                )
        self._refused = None
        return difference

    def _refusal(self, patch: str, cause: str) -> EngineFault | VariantFault:
        before, self._refused = self._refused, patch
        if before in (None, patch):
            return VariantFault(Failure(FailureKind.CANARY, cause))
        return EngineFault(Failure(FailureKind.PROOF, f"{cause}; the engine has just refused {before}, too"))
