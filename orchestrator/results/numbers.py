"""Everything that is computed of a cell, by the one name that CSV, JSON and MLflow give it.

Accuracies, differences and rates are shares. `low` and `high` are the ends of a 95 % interval.
"""

from collections.abc import Mapping
from typing import Any

from eval.intervals import Interval
from eval.metrics import CellMetrics, TokenSummary
from orchestrator.results.cells import AgainstDense, CellResult, Results

Value = float | int | str | None


def cell_numbers(metrics: CellMetrics) -> dict[str, Value]:
    """All numbers of a cell. pass@k has three names for each k that some question has draws for."""
    return {
        "accuracy": metrics.accuracy,
        **_ends("", metrics.interval),
        "interval_note": metrics.interval.note if metrics.interval else None,
        "if_missing_wrong": metrics.if_missing_wrong,
        "if_missing_right": metrics.if_missing_right,
        "seed_std": metrics.seed_std,
        "majority": metrics.majority,
        **_ends("majority_", metrics.majority_interval),
        **{
            name: value
            for k, share in metrics.pass_at.items()
            for name, value in (
                (f"pass_at_{k}", share),
                *_ends(f"pass_at_{k}_", metrics.pass_at_interval[k]).items(),
            )
        },
        "questions": metrics.questions,
        "draws": metrics.draws,
        "missing": metrics.missing,
        "ungraded": metrics.ungraded,
        **_tokens("thinking_tokens", metrics.thinking_tokens),
        **_tokens("answer_tokens", metrics.answer_tokens),
        "forced_rate": metrics.forced_rate,
        "cap_hit_rate": metrics.cap_hit_rate,
        "no_answer_rate": metrics.no_answer_rate,
        "defeated_grader": metrics.defeated_grader,
        "reopened_rate": metrics.reopened_rate,
        "loop_rate": metrics.loop_rate,
    }


def against_numbers(against: AgainstDense | None) -> dict[str, Value]:
    """All numbers of a cell's comparison with dense; every one is None without a comparison."""
    if against is None:
        return dict.fromkeys(AGAINST)
    one = against.comparison
    values: tuple[Value, ...] = (
        one.difference,
        one.interval.low,
        one.interval.high,
        one.note,
        one.lowest,
        one.highest,
        one.questions,
        one.pairs,
        one.unpaired,
        one.missing,
        one.improved,
        one.worsened,
        one.p_mcnemar,
        one.p_permutation,
        against.adjusted.holm,
        against.adjusted.benjamini_hochberg,
        one.p_if_missing,
        against.if_missing.holm,
    )
    return dict(zip(AGAINST, values, strict=True))


AGAINST = (
    "minus_dense",
    "minus_dense_low",
    "minus_dense_high",
    "minus_dense_note",
    "minus_dense_if_missing_low",
    "minus_dense_if_missing_high",
    "paired_questions",
    "pairs",
    "unpaired",
    "missing_pairs",
    "improved",
    "worsened",
    "p_mcnemar",
    "p_permutation",
    "p_holm",
    "p_benjamini_hochberg",
    "p_if_missing",
    "p_holm_if_missing",
)
"""The names of `against_numbers`, in its order."""
GRID_WIDE = {"p_holm", "p_benjamini_hochberg", "p_holm_if_missing"}
"""Those that change when the grid gets another variant."""


def numbers(results: Results, cell: CellResult) -> dict[str, Value]:
    """All numbers of a cell and of its comparison with dense."""
    against = results.against_dense.get((cell.variant.patch_id, cell.benchmark, cell.limit))
    return cell_numbers(cell.metrics) | against_numbers(against)


def results_summary(results: Results) -> dict[str, Any]:
    """The object that `status --json` prints: every cell with all its numbers, in grid order."""
    return {
        "name": results.resolved.grid.name,
        "complete": results.complete,
        "cells": [cell_summary(results, cell) for cell in results.cells],
    }


def cell_summary(results: Results, cell: CellResult) -> dict[str, Any]:
    """One entry of `cells` in it. The ends of the interval are in a list, and pass@k is by k."""
    metrics = cell.metrics
    flat: Mapping[str, Value] = numbers(results, cell)
    nested = {"low", "high", *(name for name in flat if name.startswith("pass_at_"))}
    return {
        "model": cell.variant.model_label,
        "variant": cell.variant.label,
        "benchmark": cell.benchmark,
        "token_limit": cell.limit,
        "interval": [metrics.interval.low, metrics.interval.high] if metrics.interval else None,
        "pass_at": dict(metrics.pass_at),
        "pass_at_interval": {k: [one.low, one.high] for k, one in metrics.pass_at_interval.items()},
        **{name: value for name, value in flat.items() if name not in nested},
    }


def _ends(prefix: str, interval: Interval | None) -> dict[str, Value]:
    return {
        f"{prefix}low": interval.low if interval else None,
        f"{prefix}high": interval.high if interval else None,
    }


def _tokens(name: str, summary: TokenSummary | None) -> dict[str, Value]:
    return {
        f"{name}_mean": summary.mean if summary else None,
        f"{name}_median": summary.median if summary else None,
        f"{name}_p90": summary.p90 if summary else None,
        f"{name}_max": summary.maximum if summary else None,
    }
