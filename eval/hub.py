"""The Hugging Face hub, asked with little patience: its client retries every request for half a minute. As in pruning,
which eval does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

PATIENCE: float = 4.0
"""Seconds that the hub may take to answer anything at all."""


def unreachable(seconds: float = PATIENCE) -> str:
    """Why nothing can be fetched from the hub now; empty if it answers. With HF_HUB_OFFLINE set, it is not asked."""
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _ask(constants.ENDPOINT, seconds)


@cache  # a grid of six benchmarks asks once
def _ask(endpoint: str, seconds: float) -> str:
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=seconds)
    except Exception as error:  # of the client that huggingface_hub uses: no name, no route, no proxy, no answer
        return f"{endpoint} cannot be reached ({type(error).__name__})"
    return ""


@contextmanager
def cached_only() -> Iterator[None]:
    """Within the block `datasets` reads its cache and asks nobody, as with HF_HUB_OFFLINE set."""
    import datasets

    before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
