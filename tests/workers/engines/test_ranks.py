"""What errors out of torch and vLLM mean for an engine: real ones, and those that a rank only quotes."""

from collections.abc import Callable

import pytest
import torch

from workers.engines.ranks import failure_of, nan_requests
from workers.failure import FailureKind


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
    failure = failure_of(error, FailureKind.ENGINE_ERROR)
    assert failure.kind == "out-of-memory"
    assert type(error).__name__ in failure.cause


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError("RPC call to execute_model timed out."), "hang"),
        (RuntimeError("NaNs detected in logits: {'3/trace-0a1b2c3d': 512}"), "nan"),
        (RuntimeError("shape mismatch\nsecond line"), "proof"),
        (AssertionError(), "proof"),
    ],
)
def test_other_errors_keep_the_kind_of_what_was_being_done(error: BaseException, kind: str) -> None:
    failure = failure_of(error, FailureKind.PROOF)
    assert failure.kind == kind
    assert "\n" not in failure.cause


@pytest.mark.parametrize("quote", ["{}", "Worker failed with error '{}', please check the stack trace"])
def test_requests_with_nan_logits_are_read_from_the_error_also_where_another_process_quotes_it(quote: str) -> None:
    error = RuntimeError(quote.format("NaNs detected in logits: {'3/trace-0a1b2c3d': 512, '14/answer@8-ff00ff00': 1}"))
    assert nan_requests(error) == ["3/trace-0a1b2c3d", "14/answer@8-ff00ff00"]
    failure = failure_of(error, FailureKind.ENGINE_ERROR)
    assert failure.kind is FailureKind.NAN
    assert "0a1b2c3d" not in failure.cause
    assert nan_requests(RuntimeError("shape mismatch: {'3/trace': 1}")) == []
