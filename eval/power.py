"""Power of a planned design: the loss that the paired permutation test finds with a given chance."""

import numpy as np
from scipy.special import ndtr, ndtri, roots_jacobi  # scipy.stats takes a second to import, and a plan prints at once

ACCURACY = 0.5
"""Planning assumption: the dense model's accuracy. A half needs the most questions."""
BETWEEN_SHARE = 0.5
"""Planning assumption: of the variance accuracy·(1-accuracy) of an answer, the part that lies between questions (their
difficulty), which pairing removes. Low for reasoning models on mathematics, so the reported loss errs on the cautious
side."""


def detection_power(
    questions: int,
    seeds: int,
    loss: float,
    comparisons: int = 1,
    alpha: float = 0.05,
    accuracy: float = ACCURACY,
    between_share: float = BETWEEN_SHARE,
) -> float:
    """The chance that the two-sided sign-flip test (`eval.comparison.permutation_p`) finds a true `loss` of accuracy.

    The dense model's chances at the questions are Beta distributed, and the variant loses the same share of each, so
    `loss` is at most `accuracy`. `comparisons`: tests in the grid; the level is alpha / comparisons, the first step of
    Holm. Normal approximation to total - z · sqrt(sum of squares), as the flips' own distribution has that spread; z is
    corrected for their short tails, and the total for its steps of two draws. docs/evaluation.md compares it with
    simulation. Raises `ValueError` for a design or a loss that cannot be.
    """
    if questions < 1 or seeds < 1 or comparisons < 1 or not 0 < alpha < 1:
        raise ValueError(
            f"questions={questions}, seeds={seeds}, comparisons={comparisons}, alpha={alpha}: need at least one of "
            "each, and alpha between 0 and 1."
        )
    if not 0 < accuracy < 1 or not 0 < between_share < 1 or not 0 <= loss <= accuracy:
        raise ValueError(
            f"accuracy={accuracy}, between_share={between_share}, loss={loss}: need accuracy and between_share "
            "between 0 and 1, and a loss of at most the accuracy."
        )
    mean, square, cube, fourth = _difference_moments(seeds, loss, accuracy, between_share)
    z = -float(ndtri(alpha / comparisons / 2))
    z -= (z**3 - 3 * z) / 12 * fourth / (questions * square**2)  # Cornish-Fisher: a sum of flips has short tails
    root = np.sqrt(questions * square)
    of_squares = fourth - square**2
    expected = questions * mean - z * (root - questions * of_squares / (8 * root**3)) - 1 / seeds
    pull = z / (2 * root)
    variance = questions * ((square - mean**2) - 2 * pull * (cube - mean * square) + pull**2 * of_squares)
    return float(ndtr(expected / np.sqrt(variance))) if variance > 0 else float(expected > 0)


def detectable_loss(
    questions: int,
    seeds: int,
    comparisons: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    accuracy: float = ACCURACY,
    between_share: float = BETWEEN_SHARE,
) -> float | None:
    """The smallest true loss of accuracy, as a share, that is found with chance `power`; see `detection_power`.

    None if even a loss of the whole `accuracy` is found less often. Raises `ValueError` for a design that cannot be.
    """
    if not 0 < power < 1:
        raise ValueError(f"power={power}: need a chance between 0 and 1.")
    small, large = 0.0, accuracy
    if detection_power(questions, seeds, large, comparisons, alpha, accuracy, between_share) < power:
        return None
    for _ in range(30):
        middle = (small + large) / 2
        if detection_power(questions, seeds, middle, comparisons, alpha, accuracy, between_share) < power:
            small = middle
        else:
            large = middle
    return large


def detectable_sentence(benchmark: str, questions: int, seeds: int, comparisons: int = 1) -> str:
    """One line for a plan: the smallest loss that this design finds, at the planning assumptions."""
    loss = detectable_loss(questions, seeds, comparisons)
    size = f"{questions} question{'s' if questions != 1 else ''}"
    plural = "s" if seeds != 1 else ""
    corrected = f" ({comparisons} comparisons, Holm)" if comparisons > 1 else ""
    design = f"{benchmark} ({size}) with {seeds} seed{plural}"
    if loss is None:
        return f"{design}: too few to find even a loss of all {100 * ACCURACY:.0f} points in 80 % of sweeps{corrected}"
    return (
        f"{design}: a true loss of {100 * loss:.1f} points (of {100 * ACCURACY:.0f}) is found in 80 % of sweeps, "
        f"a smaller one less often{corrected}"
    )


def _difference_moments(seeds: int, loss: float, accuracy: float, between_share: float) -> tuple[float, ...]:
    """The first four raw moments, over questions, of dense minus variant, each a mean of `seeds` draws."""
    strength = 1 / between_share - 1
    nodes, weights = roots_jacobi(5, (1 - accuracy) * strength - 1, accuracy * strength - 1)  # exact to degree 9
    dense = (1 + nodes) / 2
    variant = dense * (1 - loss / accuracy)
    # Cumulants of a question's difference, given its two chances.
    spread, other = dense * (1 - dense), variant * (1 - variant)
    first = dense - variant
    second = (spread + other) / seeds
    third = (spread * (1 - 2 * dense) - other * (1 - 2 * variant)) / seeds**2
    fourth = (spread * (1 - 6 * spread) + other * (1 - 6 * other)) / seeds**3
    raw = (
        first,
        second + first**2,
        third + 3 * second * first + first**3,
        fourth + 4 * third * first + 3 * second**2 + 6 * second * first**2 + first**4,
    )
    return tuple(float(weights @ moment / weights.sum()) for moment in raw)
