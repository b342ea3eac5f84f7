"""Warnings: what `plan` and `sweep` say of grids that are allowed and probably not meant."""

import pytest

from orchestrator.__main__ import main
from tests.support.builders import TinySweep


def told(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["plan", str(sweep.write_grid())]) == 0
    return [line.strip() for line in capsys.readouterr().out.splitlines() if "warning:" in line]


def test_s1_delimiters_on_another_family_are_warned_of(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.budget = {"mode": "s1-legacy"}
    (warning,) = told(sweep, capsys)
    assert "has not Qwen2.5's vocabulary" in warning
    assert "Use native-strict, with format: instruct" in warning


def test_answers_without_a_cap_are_warned_of(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.budget = {"mode": "s1-legacy", "answer_tokens": None}
    _, warning = told(sweep, capsys)
    assert "one that does not end fills the context of" in warning


def test_other_grids_are_not(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(sweep, capsys) == []
