"""The rank processes of a tensor-parallel engine: tells a dead or hanging rank from other errors.

vLLM starts one process per rank and waits for all of them. A dead rank fails the engine within seconds with some
`RuntimeError`; a hanging one when a step times out. vllm is not imported: of its executor only `workers`, each with
`rank` and `proc`, is read. An engine of one process has no such workers.
"""

import re
from typing import Any

import torch

from workers.failure import Failure, FailureKind

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "OutOfMemoryError", "MemoryError")
"""Parts of the messages of CUDA, torch's allocators and the C++ runtime when memory is short."""

NAN_LOGITS = "NaNs detected in logits"
"""How vLLM's error for NaN logits begins; the ids of the requests follow."""


class Ranks:
    """The rank processes of one engine, seen from the process that drives it."""

    def __init__(self, executor: Any) -> None:
        self._workers = list(getattr(executor, "workers", ()))  # the executor drops them when it shuts down

    def failure(self) -> Failure | None:
        """The failure of a dead rank; None while all live."""
        for worker in self._workers:
            if worker.proc.exitcode is not None:
                cause = f"the process of rank {worker.rank} died (exit code {worker.proc.exitcode})"
                return Failure(FailureKind.ENGINE_LOST, cause)
        return None

    def kill(self) -> None:
        """Kill every rank, including those that are stopped or wait for another."""
        for worker in self._workers:
            worker.proc.kill()
        for worker in self._workers:
            worker.proc.join()


def failure_of(error: BaseException, otherwise: FailureKind) -> Failure:
    """An error of vLLM or torch as a failure: its kind is read from the message, else it is `otherwise`."""
    text = str(error).strip()
    cause = f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if memory or any(sign in text for sign in OUT_OF_MEMORY):
        return Failure(FailureKind.OUT_OF_MEMORY, cause)
    if isinstance(error, TimeoutError):
        return Failure(FailureKind.HANG, f"no rank answered in time ({cause})")
    if NAN_LOGITS in text:
        return Failure(FailureKind.NAN, cause.partition(": {")[0])  # without vLLM's list of requests
    return Failure(otherwise, cause)


def nan_requests(error: BaseException) -> list[str]:
    """vLLM's ids of the requests whose logits were NaN, read from the error that it raised for them."""
    listed = str(error).partition(NAN_LOGITS)[2].partition("}")[0]
    return re.findall(r"'([^']+)': \d+", listed)
