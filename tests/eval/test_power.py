"""The detectable loss: against simulated comparisons, exact enumeration, and by hand."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import power_row
from eval.comparison import mcnemar_exact
from eval.power import detectable_loss, detectable_sentence, detection_power

DESIGNS = {"30 questions": (30, 3, 1), "one seed, 60 tests": (198, 1, 60), "many seeds": (40, 16, 1)}


@pytest.mark.parametrize("design", DESIGNS)
def test_loss_is_found_as_often_as_promised(design):
    assert power_row(600, *DESIGNS[design])["found"] == pytest.approx(0.8, abs=0.05)


def test_power_of_one_seed_is_that_of_the_exact_mcnemar_test():
    # With one seed the sign-flip test is McNemar's, whose power is a sum over discordant questions. Chances Beta(½, ½)
    # have E[p] = 1/2 and E[p²] = 3/8; the variant keeps the share k of each.
    for questions, loss in ((60, 0.2), (100, 0.15), (198, 0.1)):
        kept = 1 - loss / 0.5
        lost, won = 0.5 - kept * 3 / 8, kept * (0.5 - 3 / 8)
        exact = sum(
            stats.binom.pmf(total, questions, lost + won)
            * sum(
                stats.binom.pmf(worse, total, lost / (lost + won))
                for worse in range(total + 1)
                if mcnemar_exact(total - worse, worse) <= 0.05
            )
            for total in range(questions + 1)
        )
        assert detection_power(questions, 1, loss) == pytest.approx(exact, abs=0.025)


def test_power_grows_with_everything_that_should_help():
    base = detection_power(100, 1, 0.1)
    assert base < detection_power(150, 1, 0.1)
    assert base < detection_power(100, 3, 0.1)
    assert base < detection_power(100, 1, 0.15)
    assert base > detection_power(100, 1, 0.1, comparisons=60)
    assert detection_power(100, 1, 0.0) < 0.06


def test_loss_of_more_than_there_is_cannot_be_detected():
    assert detectable_loss(3, 1) is None
    assert detectable_loss(30, 1, 60) == pytest.approx(0.49, abs=0.01)
    assert detectable_loss(30, 1, 600) is None
    assert np.isclose(detection_power(30, 3, detectable_loss(30, 3)), 0.8)


def test_sentences():
    assert detectable_sentence("AIME24", 30, 3) == (
        "AIME24 (30 questions) with 3 seeds: a true loss of 19.1 points (of 50) is found in 80 % of sweeps, a smaller "
        "one less often"
    )
    assert detectable_sentence("mine", 1, 1, 2) == (
        "mine (1 question) with 1 seed: too few to find even a loss of all 50 points in 80 % of sweeps "
        "(2 comparisons, Holm)"
    )


@pytest.mark.parametrize("bad", [{"questions": 0}, {"seeds": 0}, {"loss": 0.6}, {"alpha": 1.0}])
def test_designs_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="need"):
        detection_power(**({"questions": 30, "seeds": 1, "loss": 0.1} | bad))
