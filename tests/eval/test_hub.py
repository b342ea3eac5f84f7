"""A hub that cannot be reached is told at once, and what is cached is read all the same."""

import socket
import time

import pytest
from huggingface_hub import constants

from eval.benchmarks import load_benchmark
from eval.hub import unreachable


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As without HF_HUB_OFFLINE, by the libraries' own switches, with a hub on a port where nobody listens."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    return monkeypatch


def test_benchmark_of_an_unreachable_hub_is_refused_within_seconds(online: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:1 cannot be reached.* write AIME24=PATH"):
        load_benchmark("AIME24")
    assert time.monotonic() - began < 5.0, "the hub's client alone would retry for 24 s"


def test_hub_that_never_answers_is_given_so_many_seconds(online: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        online.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert "cannot be reached" in unreachable(0.3)
        assert time.monotonic() - began < 4.0


def test_hub_is_not_asked_offline(online: pytest.MonkeyPatch) -> None:
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    assert unreachable() == "HF_HUB_OFFLINE is set"
