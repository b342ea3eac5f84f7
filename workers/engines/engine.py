"""The narrow seam between evaluation and an engine: asks go in, completions come out, weights are swapped.

An engine is driven by one thread: `submit` any number of asks, `step` until the completions arrive in the order they
finish. Nothing outside the engine's own file knows which engine it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eval.draws import Ask, Completion
from eval.spec import SamplingSpec
from workers.failure import Failure


class EngineFault(Exception):
    """The engine cannot be trusted any more and must be discarded; its finished draws remain valid.

    `asks` names those in flight that are known to be at fault; the others may well succeed on another engine.
    """

    def __init__(self, failure: Failure, asks: Sequence[str] = ()) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure, self.asks = failure, tuple(asks)

    def __reduce__(self) -> tuple[type["EngineFault"], tuple[Failure, tuple[str, ...]]]:
        return (EngineFault, (self.failure, self.asks))


class VariantFault(Exception):
    """The variant itself is at fault (its weights produce NaN, say); the engine is sound after the next swap."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure = failure


@dataclass(frozen=True)
class EngineSettings:
    """How to run an engine. `dtype` and `context_length` come from the shape; the rest changes speed, not answers."""

    dtype: str
    context_length: int
    max_sequences: int = 64
    tensor_parallel: int = 1
    cpu_cache_mib: int = 256
    gpu_memory_utilization: float = 0.9
    patience_seconds: int = 240
    """A tensor-parallel engine whose ranks are silent for so long, in one step or one swap, hangs. Less than the
    driver's own patience, which is all there is for an engine of one process."""


@dataclass(frozen=True)
class Proof:
    """What was checked after a swap; promise proof-before-sample."""

    weights_digest: str
    """One digest over every tensor of the variant, in canonical order."""
    tensors: int
    canary_error: float
    """Mean absolute difference of the canary's log-probabilities from those recorded with the patch, in nats."""


@dataclass(frozen=True)
class Finished:
    """One completion, with what it cost."""

    name: str
    completion: Completion | Failure
    prompt_tokens: int
    cached_tokens: int


class Engine(Protocol):
    """Asks in, completions out, swap weights."""

    def load(self, base: Path, patch: Path) -> Proof:
        """Hold the weights of `base` + `patch`, proved. Requires that nothing is in flight.

        Raises `EngineFault` (discard the engine), `VariantFault` (discard the variant), or `StoreUnavailable` (the
        patch cannot be read now, and nothing was touched).
        """
        ...

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec) -> None:
        """Begin one ask. `name` is unique among the asks in flight. Raises ValueError for an ask that cannot run."""
        ...

    def step(self) -> Sequence[Finished]:
        """Advance the engine once; return what finished. Raises `EngineFault`."""
        ...

    def cancel(self, names: Sequence[str]) -> None:
        """Abandon asks; their completions will not be returned."""
        ...

    def tokens_generated(self) -> int:
        """How many tokens it has generated since it started, those of asks in flight included."""
        ...

    def settings(self) -> Mapping[str, str]:
        """What can shift numerics: versions, dtype, parallelism, attention backend."""
        ...

    def close(self) -> None:
        """Give back the device."""
        ...
