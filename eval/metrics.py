"""Graded draws of one cell (one variant, benchmark and token limit) become its numbers.

What the model failed to give (no answer) counts as not correct. What the infrastructure failed to give does
not count at all: missing draws and failed graders are left out, counted, and make the cell incomplete
(failure-is-not-zero).
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import comb

import numpy as np

from eval.answers import as_integer
from eval.grading import Grade
from eval.intervals import FloatArray, Interval, analytic_interval, bootstrap_interval


@dataclass(frozen=True)
class Outcome:
    """One graded answer with what is known of its draw. Token counts in tokens."""

    problem_id: str
    seed: int
    grade: Grade
    thinking_tokens: int = 0
    answer_tokens: int = 0
    forced: bool = False
    cap_hit: bool = False
    reopened_thinking: bool = False
    looped: bool = False

    @property
    def correct(self) -> bool | None:
        """None where the grader failed, so that nothing is known."""
        return None if self.grade.grader_failed else self.grade.verdict == "CORRECT"


@dataclass(frozen=True)
class TokenSummary:
    """A distribution of token counts."""

    mean: float
    median: float
    p90: float
    maximum: int


@dataclass(frozen=True)
class CellMetrics:
    """The numbers of one cell.

    ``accuracy`` is avg@k: the mean over questions of the mean over seeds; None with nothing graded.
    ``interval`` is the question-clustered bootstrap's, ``analytic`` the clustered Wilson interval.
    ``seed_std`` is the population standard deviation over seeds of the accuracy of each seed (the paper's
    ±); None unless all seeds are complete. ``pass_at`` maps k to pass@k, over the questions that have k
    graded draws. ``majority`` is maj@k over all seeds. Rates are shares of the ``draws`` present.
    ``missing`` counts owed draws that are not there, ``ungraded`` those whose grader failed; ``complete``
    means neither.
    """

    questions: int
    draws: int
    accuracy: float | None
    interval: Interval | None
    analytic: Interval | None
    seed_std: float | None
    pass_at: Mapping[int, float]
    majority: float | None
    thinking_tokens: TokenSummary | None
    answer_tokens: TokenSummary | None
    forced_rate: float
    cap_hit_rate: float
    no_answer_rate: float
    reopened_rate: float
    loop_rate: float
    missing: int
    ungraded: int

    @property
    def complete(self) -> bool:
        return self.missing == 0 and self.ungraded == 0


def cell_metrics(outcomes: Collection[Outcome], owed: Collection[tuple[str, int]], level: float = 0.95) -> CellMetrics:
    """Summarise one cell. ``owed`` lists the (problem id, seed) pairs that the plan asked for.

    Raises ``ValueError`` for a draw that is there twice or was never owed.
    """
    present = Counter((outcome.problem_id, outcome.seed) for outcome in outcomes)
    planned = set(owed)
    for (problem_id, seed), count in present.items():
        if count > 1 or (problem_id, seed) not in planned:
            fault = f"is there {count} times" if count > 1 else "was not asked for"
            raise ValueError(
                f"problem {problem_id!r}, seed {seed}: this draw {fault}. Metrics need each owed draw once."
            )
    graded = [outcome for outcome in outcomes if outcome.correct is not None]
    means = question_means(graded)
    values = np.array(list(means.values()))
    return CellMetrics(
        questions=len(means),
        draws=len(outcomes),
        accuracy=float(values.mean()) if len(values) else None,
        interval=bootstrap_interval(values, level) if len(values) else None,
        analytic=analytic_interval(values, level) if len(values) else None,
        seed_std=seed_std(graded, planned),
        pass_at=_pass_at(graded),
        majority=majority_at_k(graded),
        thinking_tokens=_summary([outcome.thinking_tokens for outcome in outcomes]),
        answer_tokens=_summary([outcome.answer_tokens for outcome in outcomes]),
        forced_rate=_rate(outcome.forced for outcome in outcomes),
        cap_hit_rate=_rate(outcome.cap_hit for outcome in outcomes),
        no_answer_rate=_rate(
            outcome.grade.verdict == "UNPARSED" and not outcome.grade.grader_failed for outcome in outcomes
        ),
        reopened_rate=_rate(outcome.reopened_thinking for outcome in outcomes),
        loop_rate=_rate(outcome.looped for outcome in outcomes),
        missing=len(planned) - len(present),
        ungraded=len(outcomes) - len(graded),
    )


def question_means(graded: Iterable[Outcome]) -> dict[str, float]:
    """Problem id -> share of its graded draws that are correct, in order of first appearance."""
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for outcome in graded:
        if outcome.correct is not None:
            verdicts[outcome.problem_id].append(outcome.correct)
    return {problem_id: sum(flags) / len(flags) for problem_id, flags in verdicts.items()}


def seed_std(graded: Iterable[Outcome], owed: Collection[tuple[str, int]]) -> float | None:
    """Population standard deviation (ddof 0) over seeds of each seed's accuracy, as the paper's tables have
    it.

    None for fewer than two seeds, or while any owed draw lacks a grade: seeds would be scored on different
    questions.
    """
    by_seed: dict[int, list[bool]] = defaultdict(list)
    total = 0
    for outcome in graded:
        if outcome.correct is not None:
            by_seed[outcome.seed].append(outcome.correct)
            total += 1
    if total < len(set(owed)) or len(by_seed) < 2:
        return None
    return float(np.std([np.mean(flags) for flags in by_seed.values()], ddof=0))


def pass_at_k(draws: int, correct: int, k: int) -> float:
    """The unbiased estimate of the chance that one of ``k`` draws is correct, 1 - C(n-c, k) / C(n, k) (Chen
    et al. 2021, arXiv 2107.03374, equation 1). ``k`` must not exceed ``draws``."""
    if not 1 <= k <= draws or not 0 <= correct <= draws:
        raise ValueError(f"pass@{k} of {correct} correct in {draws} draws: need 1 ≤ k ≤ draws and 0 ≤ correct ≤ draws.")
    return 1.0 - comb(draws - correct, k) / comb(draws, k)


def majority_at_k(graded: Iterable[Outcome]) -> float | None:
    """maj@k: the share of questions whose most frequent answer over all seeds is correct; None without any
    question.

    Draws without an answer have no vote. All correct answers are one candidate, the others go by their
    spelling; a tie counts for the correct one's share of it, the expectation of breaking it by lot.
    """
    votes: dict[str, Counter[str | bool]] = defaultdict(Counter)
    for outcome in graded:
        ballot = votes[outcome.problem_id]
        if outcome.correct:
            ballot[True] += 1
        elif outcome.grade.extracted is not None:
            ballot[_candidate(outcome.grade.extracted)] += 1
    return float(np.mean([_share_of_win(ballot) for ballot in votes.values()])) if votes else None


def _candidate(extracted: str) -> str:
    return as_integer(extracted) or "".join(extracted.split())


def _share_of_win(ballot: Counter[str | bool]) -> float:
    best = max(ballot.values(), default=0)
    winners = [candidate for candidate, count in ballot.items() if count == best]
    return 1 / len(winners) if True in winners else 0.0


def _pass_at(graded: Iterable[Outcome]) -> dict[int, float]:
    """pass@k for k = 1, 2, 4, ... up to the largest number of draws of any question."""
    tally: dict[str, list[bool]] = defaultdict(list)
    for outcome in graded:
        tally[outcome.problem_id].append(bool(outcome.correct))
    most = max(map(len, tally.values()), default=0)
    powers = [2**exponent for exponent in range(most.bit_length())]
    return {k: float(np.mean([pass_at_k(len(f), sum(f), k) for f in tally.values() if len(f) >= k])) for k in powers}


def _summary(counts: list[int]) -> TokenSummary | None:
    if not counts:
        return None
    array: FloatArray = np.array(counts, dtype=np.float64)
    median, p90 = np.quantile(array, [0.5, 0.9])
    return TokenSummary(float(array.mean()), float(median), float(p90), max(counts))


def _rate(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return sum(listed) / len(listed) if listed else 0.0
