"""The Hugging Face hub, asked with little patience: its client retries every request for half a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE: float = 4.0
"""Seconds that the hub may take to answer anything at all."""


class HubUnreachable(ValueError):
    """Something is not cached here, and the hub cannot be reached. Another machine may have it."""


def unreachable(seconds: float = PATIENCE) -> str:
    """Why nothing can be fetched from the hub now; empty if it answers. With HF_HUB_OFFLINE set, it is not asked."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception as error:  # of the client that huggingface_hub uses: no name, no route, no proxy, no answer
        return f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})"
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
