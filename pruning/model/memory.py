"""What a pass holds in memory, and giving back what it no longer holds."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch


def peak_memory(device: str) -> int:
    """Most memory held so far, in bytes: on the GPU where one is used, else by this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    high_water = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return high_water if sys.platform == "darwin" else high_water * 1024


def give_back() -> None:
    """Return freed heap pages to the system.

    Blocks come and go in tensors of a dozen sizes, which glibc keeps, fragmented, in its heap: without this a pass over
    36 blocks of 25 MB grows by 600 MB while 70 MB are alive. Other C libraries return pages by themselves.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
