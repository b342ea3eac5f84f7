"""Power of a planned design: the minimum detectable effect of a paired comparison."""

from scipy.special import stdtrit  # scipy.stats takes a second to import, and a plan should print at once


def planned_difference_sd(seeds: int, accuracy: float = 0.5, between_share: float = 0.5) -> float:
    """Standard deviation over questions of (variant - baseline) if both are equally good at each question.

    With accuracy p_i at question i, the difference of two means over `seeds` draws has variance 2 p_i (1-p_i) / seeds.
    `between_share` is the part of the total variance accuracy·(1-accuracy) that lies between questions (their
    difficulty), which pairing removes: E[p_i (1-p_i)] = accuracy·(1-accuracy)·(1-between_share). The default, a half,
    is low for reasoning models on mathematics, so the reported effect errs on the cautious side.
    """
    if seeds < 1 or not 0 <= accuracy <= 1 or not 0 <= between_share < 1:
        raise ValueError(
            f"seeds={seeds}, accuracy={accuracy}, between_share={between_share}: need seeds ≥ 1, accuracy "
            "in [0, 1] and between_share in [0, 1)."
        )
    return float((2 * accuracy * (1 - accuracy) * (1 - between_share) / seeds) ** 0.5)


def minimum_detectable_effect(
    questions: int,
    difference_sd: float,
    comparisons: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    effect_spread: float = 0.5,
) -> float:
    """The smallest true difference in accuracy, as a share, that a two-sided paired test finds with chance `power`.

    `difference_sd`: standard deviation of the per-question differences without an effect, measured or from
    `planned_difference_sd`. `effect_spread`: how unevenly the effect falls on questions, Var(effect) / mean(effect)²;
    0 is the same for all, and a loss in proportion to a question's accuracy gives 0.5 at the planning assumptions.
    `comparisons`: tests in the grid; the level is alpha / comparisons, the first step of Holm.

    It solves the t test's equation effect = (t_{1-level/2} + t_{power}) · sqrt((difference_sd² + effect_spread ·
    effect²) / questions), and is 1 if no smaller effect can be detected.
    """
    if questions < 1 or comparisons < 1 or not 0 < alpha < 1 or not 0 < power < 1 or effect_spread < 0:
        raise ValueError(
            f"questions={questions}, comparisons={comparisons}, alpha={alpha}, power={power}, effect_spread="
            f"{effect_spread}: need at least one question, one comparison, alpha and power between 0 and 1, and a "
            "spread of 0 or more."
        )
    if questions == 1:
        return 1.0
    freedom = questions - 1
    reach = stdtrit(freedom, 1 - alpha / comparisons / 2) + stdtrit(freedom, power)
    room = questions - effect_spread * reach * reach
    return float(min(1.0, reach * difference_sd / room**0.5)) if room > 0 else 1.0


def detectable_sentence(benchmark: str, questions: int, seeds: int, comparisons: int = 1) -> str:
    """One line for a plan: the smallest effect that this design detects, at the default planning assumptions."""
    effect = minimum_detectable_effect(questions, planned_difference_sd(seeds), comparisons)
    size = f"{questions} question{'s' if questions != 1 else ''}"
    plural = "s" if seeds != 1 else ""
    corrected = f", corrected for {comparisons} comparisons" if comparisons > 1 else ""
    return (
        f"{benchmark} ({size}) with {seeds} seed{plural} cannot detect less than "
        f"{100 * effect:.1f} points (80 % power{corrected})"
    )
