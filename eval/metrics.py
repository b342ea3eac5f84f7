"""The numbers of one cell (one variant, benchmark and token limit), from its graded draws.

An answer that the model failed to give counts as not correct. Data that the infrastructure failed to give is missing:
absent draws and failed graders are excluded, counted, and make the cell incomplete (failure-is-not-zero). An answer
whose text stops every grader is not correct, and counted (`defeated_grader`).
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import comb

import numpy as np

from eval.equality.same_value import value_key
from eval.grading import Grade
from eval.intervals import FloatArray, Interval, accuracy_interval


@dataclass(frozen=True)
class Outcome:
    """One graded answer, and what is known of its draw."""

    problem_id: str
    seed: int
    grade: Grade
    thinking_tokens: int = 0
    answer_tokens: int = 0
    forced: bool = False
    cap_hit: bool = False
    reopened_thinking: bool = False
    looped: bool = False
    """Whether the trace has come to a loop by the cut."""

    @cached_property
    def correct(self) -> bool | None:
        """None if the grader failed."""
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
    """The numbers of one cell. Accuracies and rates are shares; those that need graded draws are None without any."""

    questions: int
    """Questions with at least one graded draw."""
    draws: int
    """Draws that are present, graded or not; rates and token counts are over these."""
    accuracy: float | None
    """avg@k: the mean over questions of the mean over seeds."""
    interval: Interval | None
    """Of `accuracy`, over questions: `eval.intervals.accuracy_interval`."""
    if_missing_wrong: float
    """`accuracy` if every planned draw without a grade were wrong."""
    if_missing_right: float
    """And if it were right. Both are `accuracy` for a complete cell."""
    seed_std: float | None
    """The population standard deviation over seeds of each seed's accuracy (the paper's ±); None unless every owed draw
    is graded and there are two seeds."""
    pass_at: Mapping[int, float]
    """k -> pass@k over the questions with k graded draws, for k = 1, 2, 4, ... up to the most that a question has."""
    pass_at_interval: Mapping[int, Interval]
    majority: float | None
    """maj@k over all seeds."""
    majority_interval: Interval | None
    thinking_tokens: TokenSummary | None
    """Lengths of what comes before the answer at this limit. Limits share a trace, so a sum over cells repeats it."""
    answer_tokens: TokenSummary | None
    """Lengths of the answers at this limit. In budget mode `none` they are a part of the response: all of it, if it has
    no end tag, and so what another limit's answer holds, too."""
    forced_rate: float
    cap_hit_rate: float
    no_answer_rate: float
    reopened_rate: float
    loop_rate: float
    """Draws whose trace has come to a loop within the limit (`eval.loops`), whether it was cut there or not."""
    defeated_grader: int
    """Draws that count as wrong because their text stops every grader: `eval.grading.settle`."""
    missing: int
    """Draws that were planned and are not present."""
    ungraded: int
    """Present draws whose grader failed."""

    @property
    def complete(self) -> bool:
        """Whether every planned draw is present and graded."""
        return self.missing == 0 and self.ungraded == 0


def cell_metrics(
    outcomes: Collection[Outcome], planned: Collection[tuple[str, int]], level: float = 0.95
) -> CellMetrics:
    """The numbers of one cell. `planned` holds the (problem id, seed) pairs that the grid asks for.

    Raises `ValueError` for a draw that is present twice or was not planned.
    """
    present = Counter((outcome.problem_id, outcome.seed) for outcome in outcomes)
    expected = set(planned)
    for (problem_id, seed), count in present.items():
        if count > 1 or (problem_id, seed) not in expected:
            fault = f"is present {count} times" if count > 1 else "was not asked for"
            raise ValueError(
                f"problem {problem_id!r}, seed {seed}: this draw {fault}. Metrics need each planned draw once."
            )
    graded = [outcome for outcome in outcomes if outcome.correct is not None]
    tally = _tally(graded)
    values = np.array(list(question_means(graded).values()))
    draws = np.array([float(len(flags)) for flags in tally.values()])
    pass_at = _pass_at(tally)
    wins = np.array(list(_majorities(graded).values()))
    return CellMetrics(
        questions=len(values),
        draws=len(outcomes),
        accuracy=float(values.mean()) if len(values) else None,
        interval=accuracy_interval(values, draws, level) if len(values) else None,
        if_missing_wrong=_if_missing(tally, expected, right=False),
        if_missing_right=_if_missing(tally, expected, right=True),
        seed_std=seed_std(graded, expected),
        pass_at={k: float(each.mean()) for k, (each, _) in pass_at.items()},
        pass_at_interval={k: accuracy_interval(each, groups, level) for k, (each, groups) in pass_at.items()},
        majority=float(wins.mean()) if len(wins) else None,
        majority_interval=accuracy_interval(wins, np.ones(len(wins)), level) if len(wins) else None,
        thinking_tokens=_summary([outcome.thinking_tokens for outcome in outcomes]),
        answer_tokens=_summary([outcome.answer_tokens for outcome in outcomes]),
        forced_rate=_rate(outcome.forced for outcome in outcomes),
        cap_hit_rate=_rate(outcome.cap_hit for outcome in outcomes),
        no_answer_rate=_rate(
            outcome.grade.verdict == "UNPARSED" and not outcome.grade.grader_failed for outcome in outcomes
        ),
        reopened_rate=_rate(outcome.reopened_thinking for outcome in outcomes),
        loop_rate=_rate(outcome.looped for outcome in outcomes),
        defeated_grader=sum(outcome.grade.defeated_grader for outcome in outcomes),
        missing=len(expected) - len(present),
        ungraded=len(outcomes) - len(graded),
    )


def question_means(graded: Iterable[Outcome]) -> dict[str, float]:
    """Problem id -> the share of its graded draws that are correct, in order of first appearance."""
    return {problem_id: sum(flags) / len(flags) for problem_id, flags in _tally(graded).items()}


def seed_std(graded: Iterable[Outcome], planned: Collection[tuple[str, int]]) -> float | None:
    """Population standard deviation (ddof 0) over seeds of each seed's accuracy, as in the paper's tables.

    None for fewer than two seeds, or if any planned draw has no grade: seeds would be scored on different questions.
    """
    by_seed: dict[int, list[bool]] = defaultdict(list)
    total = 0
    for outcome in graded:
        if outcome.correct is not None:
            by_seed[outcome.seed].append(outcome.correct)
            total += 1
    if total < len(set(planned)) or len(by_seed) < 2:
        return None
    return float(np.std([np.mean(flags) for flags in by_seed.values()], ddof=0))


def pass_at_k(draws: int, correct: int, k: int) -> float:
    """The unbiased estimate of the chance that one of `k` draws is correct: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021,
    arXiv 2107.03374, equation 1). Raises `ValueError` unless 1 ≤ `k` ≤ `draws`."""
    if not 1 <= k <= draws or not 0 <= correct <= draws:
        raise ValueError(f"pass@{k} of {correct} correct in {draws} draws: need 1 ≤ k ≤ draws and 0 ≤ correct ≤ draws.")
    return 1.0 - comb(draws - correct, k) / comb(draws, k)


def majority_at_k(graded: Iterable[Outcome]) -> float | None:
    """maj@k: the share of questions whose most frequent answer over all seeds is correct; None without any question.

    Draws without an answer do not vote. All correct answers are one candidate, and the others are grouped by spelling.
    A tie counts as the expectation of breaking it at random.
    """
    wins = _majorities(graded)
    return float(np.mean(list(wins.values()))) if wins else None


def _majorities(graded: Iterable[Outcome]) -> dict[str, float]:
    """Problem id -> the chance that its most frequent answer is correct."""
    votes: dict[str, Counter[str | bool]] = defaultdict(Counter)
    for outcome in graded:
        ballot = votes[outcome.problem_id]
        if outcome.correct:
            ballot[True] += 1
        elif outcome.grade.extracted is not None:
            ballot[_candidate(outcome.grade.extracted)] += 1
    return {problem_id: _share_of_win(ballot) for problem_id, ballot in votes.items()}


@lru_cache(maxsize=100_000)
def _candidate(extracted: str) -> str:
    return value_key(extracted)


def _share_of_win(ballot: Counter[str | bool]) -> float:
    best = max(ballot.values(), default=0)
    winners = [candidate for candidate, count in ballot.items() if count == best]
    return 1 / len(winners) if True in winners else 0.0


def _tally(graded: Iterable[Outcome]) -> dict[str, list[bool]]:
    """Problem id -> the verdict of each of its graded draws, in order of first appearance."""
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for outcome in graded:
        if outcome.correct is not None:
            verdicts[outcome.problem_id].append(outcome.correct)
    return verdicts


def _if_missing(tally: Mapping[str, list[bool]], planned: Collection[tuple[str, int]], *, right: bool) -> float:
    """Accuracy over the planned draws, with every one that has no grade counted as `right` or not."""
    asked = Counter(problem_id for problem_id, _ in planned)
    shares = [
        (sum(tally.get(problem_id, ())) + right * (count - len(tally.get(problem_id, ())))) / count
        for problem_id, count in asked.items()
    ]
    return float(np.mean(shares)) if shares else float(right)


def _pass_at(tally: Mapping[str, list[bool]]) -> dict[int, tuple[FloatArray, FloatArray]]:
    """k -> pass@k of each question with k draws, and how many groups of k draws it has.

    For k = 1, 2, 4, ... up to the largest number of draws of any question; both arrays have shape [questions].
    """
    most = max(map(len, tally.values()), default=0)
    found = {}
    for k in (2**exponent for exponent in range(most.bit_length())):
        enough = [flags for flags in tally.values() if len(flags) >= k]
        each = np.array([pass_at_k(len(flags), sum(flags), k) for flags in enough])
        found[k] = (each, np.array([len(flags) / k for flags in enough]))
    return found


def _summary(counts: list[int]) -> TokenSummary | None:
    if not counts:
        return None
    array: FloatArray = np.array(counts, dtype=np.float64)
    median, p90 = np.quantile(array, [0.5, 0.9])
    return TokenSummary(float(array.mean()), float(median), float(p90), max(counts))


def _rate(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return sum(listed) / len(listed) if listed else 0.0
