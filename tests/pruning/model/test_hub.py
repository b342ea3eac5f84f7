"""Calibration data of an unreachable hub: told at once, and as a matter of the machine, not of the specification."""

import time

import pytest
from huggingface_hub import constants

from pruning.model.calibration import load_windows
from pruning.model.checkpoint import Checkpoint
from pruning.model.hub import HubUnreachable
from pruning.spec import CalibrationSpec
from tests.support import ROOT


def test_calibration_data_of_an_unreachable_hub_are_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    base = Checkpoint.open(ROOT / "examples" / "tiny" / "model")
    began = time.monotonic()
    with pytest.raises(HubUnreachable, match=r"c4: hub dataset 'allenai/c4' .*127\.0\.0\.1:1 cannot be reached"):
        load_windows(CalibrationSpec("c4", tokens=64), base)
    assert time.monotonic() - began < 5.0
    assert datasets.config.HF_HUB_OFFLINE is False, "the switch is put back"
