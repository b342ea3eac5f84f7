"""What errors out of torch and vLLM mean for an engine: real ones, and those that a rank only quotes."""

from collections.abc import Callable

import pytest
import torch

from workers.engines.ranks import failure_of


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except (RuntimeError, MemoryError) as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "error",
    [
        raised(lambda: torch.empty(1 << 50)),  # DefaultCPUAllocator: can't allocate memory
        raised(lambda: bytearray(1 << 60)),  # MemoryError
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("Worker failed with error 'CUDA out of memory. Tried to allocate 2.00 GiB', please check"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_is_told_as_such(error: BaseException) -> None:
    failure = failure_of(error, "engine-error")
    assert failure.kind == "out-of-memory"
    assert type(error).__name__ in failure.cause


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError("RPC call to execute_model timed out."), "hang"),
        (RuntimeError("NaNs detected in logits"), "nan-logits"),
        (RuntimeError("shape mismatch\nsecond line"), "proof"),
        (AssertionError(), "proof"),
    ],
)
def test_other_errors_keep_the_kind_of_what_was_being_done(error: BaseException, kind: str) -> None:
    failure = failure_of(error, "proof")
    assert failure.kind == kind
    assert "\n" not in failure.cause
