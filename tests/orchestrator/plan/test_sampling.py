"""`plan` says how tokens are sampled, and what the model's authors recommend where the grid does otherwise."""

import json
import shutil

import pytest

from orchestrator.__main__ import main
from tests.support.builders import TINY, TinySweep

QWEN3 = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}
"""As Qwen3-8B's generation_config.json has it."""


def last_lines(sweep: TinySweep, capsys: pytest.CaptureFixture[str], config: object) -> str:
    """What `plan` prints about sampling for a model with this generation_config.json."""
    sweep.model = sweep.folder / "model"
    shutil.copytree(TINY / "model", sweep.model)
    (sweep.model / "generation_config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert main(["plan", str(sweep.write_grid())]) == 0
    return capsys.readouterr().out.partition("  sampling  ")[2]


@pytest.mark.parametrize("config", [{}, {"do_sample": False, "temperature": 0.6}, {"temperature": "warm"}])
def test_sampling_of_a_model_that_recommends_nothing(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str], config: object
) -> None:
    assert last_lines(sweep, capsys, config) == "temperature 1\n"


def test_recommendation_that_the_grid_does_not_follow_is_told(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    told = last_lines(sweep, capsys, QWEN3)
    first, second = told.splitlines()
    assert first == "temperature 1"
    assert second.strip().endswith(
        "recommends temperature 0.6, top_p 0.95, top_k 20 (generation_config.json), which is not used"
    )


def test_recommendation_that_the_grid_follows_is_not_repeated(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.sampling = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    assert last_lines(sweep, capsys, QWEN3) == "temperature 0.6, top_p 0.95, top_k 20\n"


def test_filter_that_the_grid_leaves_off_differs_from_the_recommendation(
    sweep: TinySweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.sampling = {"temperature": 0.6, "top_p": 0.95}
    assert "which is not used" in last_lines(sweep, capsys, QWEN3)


def test_greedy_decoding_has_a_name(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.temperature, sweep.seeds = 0.0, (0,)
    assert last_lines(sweep, capsys, {}) == "greedy (temperature 0)\n"


def test_json_has_both(sweep: TinySweep, capsys: pytest.CaptureFixture[str]) -> None:
    last_lines(sweep, capsys, QWEN3)
    assert main(["plan", str(sweep.write_grid()), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["sampling"]
    assert told["used"] == {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0}
    assert told["recommended"] == {
        str(sweep.folder / "model"): {k: QWEN3[k] for k in ("temperature", "top_p", "top_k")}
    }
