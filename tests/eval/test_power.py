"""The minimum detectable effect: against simulated comparisons, and by hand."""

import numpy as np
import pytest

from benchmarks.coverage import abilities, answers
from eval.comparison import permutation_p
from eval.power import detectable_sentence, minimum_detectable_effect, planned_difference_sd


def power_found(chances: np.ndarray, pruned: np.ndarray, seeds: int, rounds: int = 600) -> float:
    """Share of simulated comparisons that the permutation test finds at 5 %. Arrays: [rounds, questions]."""
    rng = np.random.default_rng(0)
    counts = np.full(chances.shape[1], float(seeds))
    return np.mean([
        permutation_p(answers(rng, worse, seeds) - answers(rng, dense, seeds), counts) <= 0.05
        for dense, worse in zip(chances[:rounds], pruned[:rounds], strict=True)
    ])  # fmt: skip


def test_an_even_effect_is_found_as_often_as_promised():
    effect = minimum_detectable_effect(100, planned_difference_sd(3, between_share=0), effect_spread=0)
    chances = np.full((600, 100), 0.5 + effect / 2)
    assert power_found(chances, chances - effect, 3) == pytest.approx(0.8, abs=0.05)


def test_a_proportional_loss_of_that_size_is_found_no_more_often():
    # "Cannot see less than": the planning figure may flatter the design's power a little, never the reverse.
    effect = minimum_detectable_effect(100, planned_difference_sd(3))
    rng = np.random.default_rng(1)
    chances = np.array([abilities(rng, 100, 0.5) for _ in range(600)])
    assert 0.65 < power_found(chances, chances * (1 - 2 * effect), 3) < 0.83


def test_detectable_effects():
    assert minimum_detectable_effect(100, 0.5, effect_spread=0) == pytest.approx((1.984 + 0.845) * 0.05, abs=1e-3)
    assert minimum_detectable_effect(3, 0.5) == minimum_detectable_effect(1, 0.5) == 1.0
    assert minimum_detectable_effect(100, 0.5, comparisons=60) > minimum_detectable_effect(100, 0.5)
    assert planned_difference_sd(3) == pytest.approx((2 * 0.125 / 3) ** 0.5)
    assert detectable_sentence("AIME24", 30, 3) == (
        "AIME24 (30 questions) with 3 seeds cannot detect less than 16.5 points (80 % power)"
    )
    assert detectable_sentence("mine", 1, 1).startswith("mine (1 question) with 1 seed cannot detect less than 100.0")
    assert "corrected for 60 comparisons" in detectable_sentence("AIME24", 30, 1, 60)
    with pytest.raises(ValueError, match="at least one question"):
        minimum_detectable_effect(0, 0.5)
    with pytest.raises(ValueError, match="seeds ≥ 1"):
        planned_difference_sd(0)
