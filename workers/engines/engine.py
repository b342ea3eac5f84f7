"""The interface between evaluation and an engine: asks go in, completions come out, weights are swapped.

An engine is driven by one thread: `submit` any number of asks, then `step`; completions come out in the order they
finish. Nothing outside an engine's own file knows which engine it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eval.draws import Ask, Completion
from eval.spec import SamplingSpec
from workers.failure import Failure


class EngineFault(Exception):
    """The engine cannot be trusted any more and must be killed; its finished draws remain valid.


    `asks` names those in flight that are known to be at fault; the others may well succeed on another engine.
    """

    def __init__(self, failure: Failure, asks: Sequence[str] = ()) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure, self.asks = failure, tuple(asks)

    def __reduce__(self) -> tuple[type["EngineFault"], tuple[Failure, tuple[str, ...]]]:
        return (EngineFault, (self.failure, self.asks))


class VariantFault(Exception):
    """The variant is at fault (its weights produce NaN, say); the engine is sound after the next swap."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.cause}")
        self.failure = failure


@dataclass(frozen=True)
class EngineSettings:
    """How to run an engine. All but `dtype` and `context_length` change speed, not answers."""

    dtype: str
    context_length: int
    max_sequences: int | None = None
    """The most sequences decoded at once; None for as many as the device decodes well."""
    tensor_parallel: int = 1
    cpu_cache_mib: int = 256
    gpu_memory_utilization: float = 0.9
    patience_seconds: int = 240
    """A tensor-parallel engine counts as hanging when its ranks are silent for this long in one step or swap. It must
    be less than the scheduler's `silence_seconds`, which alone covers an engine of one process."""


@dataclass(frozen=True)
class Capacity:
    """How much an engine has room for."""

    sequences: int
    """Decoded at once."""
    cache_tokens: int
    """Of the key-value cache, which is given out in blocks of `block_tokens`."""
    block_tokens: int = 1


@dataclass(frozen=True)
class Proof:
    """The result of a proved swap; promise proof-before-sample."""

    weights_digest: str
    """One digest over every tensor of the variant, in canonical order."""
    canary_error: float
    """Mean absolute difference between the canary's log-probabilities and those recorded with the patch, in nats."""


@dataclass(frozen=True)
class Finished:
    """One completion, with the number of its prompt's tokens and how many of them were in the prefix cache."""

    name: str
    completion: Completion | Failure
    prompt_tokens: int
    cached_tokens: int


class Engine(Protocol):
    """An engine that holds one variant at a time."""

    def load(self, base: Path, patch: Path) -> Proof:
        """Load the weights of `base` + `patch` and prove them. Requires that no ask is in flight.

        Raises `EngineFault` (kill the engine), `VariantFault` (give the variant up), or `StoreUnavailable` (the patch
        cannot be read now; the engine is unchanged).
        """
        ...

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec, rank: int = 0) -> None:
        """Begin one ask. `name` must be unique among those in flight. Where there is no room for all, the lowest `rank`
        runs first and gives way last. Raises ValueError for an ask that cannot run."""
        ...

    def step(self) -> Sequence[Finished]:
        """Advance the engine once; return the completions that finished. Raises `EngineFault`."""
        ...

    def cancel(self, names: Sequence[str]) -> None:
        """Abort asks; their completions are not returned."""
        ...

    def capacity(self) -> Capacity:
        """How much there is room for."""
        ...

    def progress(self) -> Mapping[str, int]:
        """The name of each ask in flight -> how many of its tokens have been generated."""
        ...

    def tokens_generated(self) -> int:
        """The number of tokens generated since the engine started, including those of asks in flight."""
        ...

    def settings(self) -> Mapping[str, str]:
        """What can change numerics: versions, dtype, parallelism, attention backend."""
        ...

    def close(self) -> None:
        """Release the device."""
        ...
