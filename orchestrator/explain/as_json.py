"""What `explain` found, for a program: one JSON object with the same keys every time."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.explain.explain import CellStatus, ContextReport, DrawReport, Explanation, UnknownId
from orchestrator.explain.reasons import Reason
from orchestrator.explain.similar import SimilarEntry


def explanation_json(explanation: Explanation) -> str:
    """One JSON object on one line.

    The keys `held`, `look_alikes` and `foreign` are older than the names in the code; scripts read them, so they stay.
    """
    unknown_id = explanation.unknown_id
    value = {
        "name": explanation.grid,
        "store": explanation.store,
        "what": explanation.what,
        "grader": explanation.grader,
        "cells": [_cell_json(cell) for cell in explanation.cells],
        "contexts": [_context_json(report) for report in explanation.contexts],
        "given_up": [vars(group) for group in explanation.failures],
        "contexts_of_other_grids": explanation.contexts_outside_grid,
        "foreign": None if unknown_id is None else _unknown_id_json(unknown_id),
    }
    return json.dumps(value)


def _cell_json(cell: CellStatus) -> dict[str, Any]:
    return {
        "model": cell.selected.variant.model_label,
        "variant": cell.selected.variant.label,
        "limit": cell.limit,
        "patch": cell.selected.variant.patch_id,
        "context": cell.selected.decoding.context.context_id,
        "state": cell.state,
        "draws": cell.draws,
        "complete": cell.complete,
        "reasons": [_reason_json(reason) for reason in cell.reasons],
    }


def _reason_json(reason: Reason) -> dict[str, Any]:
    one = reason.example
    example = {"benchmark": one.question.benchmark, "problem": one.question.problem_id, "seed": one.seed}
    return {
        "why": reason.why,
        "draws": reason.draws,
        "sentence": reason.sentence,
        "benchmarks": dict(reason.benchmarks),
        "example": example,
    }


def _context_json(report: ContextReport) -> dict[str, Any]:
    context = report.selected.decoding.context
    return {
        "context": context.context_id,
        "answers": context.answer_context_id,
        "patch": context.patch_id,
        "patch_held": report.patch_stored,
        "held": None if report.provenance is None else vars(report.provenance),
        "look_alikes": [_similar_json(one) for one in report.similar],
        "draw": None if report.draw is None else _draw_json(report.draw),
    }


def _draw_json(draw: DrawReport) -> dict[str, Any]:
    return {
        "name": draw.name,
        "limits": [
            {
                "limit": one.limit,
                "why": "given-up" if one.failure is not None else one.state.value,
                "cut": one.cut,
                "verdict": one.grade.verdict if one.grade is not None else None,
            }
            for one in draw.statuses
        ],
        "rows": [_row_json(row) for row in draw.rows],
        "given_up": [
            {key: row[key] for key in ("kind", "cause", "attempts", "log", "created_at")} for row in draw.failures
        ],
    }


def _row_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "start": row["start"],
        "tokens": row["trace_tokens"],
        "cuts": [answer["cut"] for answer in row["answers"]],
        "worker": row["worker"],
        "created_at": row["created_at"],
    }


def _similar_json(one: SimilarEntry) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "id": one.name,
        "variant": one.label,
        "differences": [vars(difference) | {"words": difference.words} for difference in one.differences],
    }


def _unknown_id_json(unknown: UnknownId) -> dict[str, Any]:
    return {
        "kind": unknown.kind,
        "id": unknown.name,
        "variant": unknown.label,
        "draws": unknown.draws,
        "nearest": [_similar_json(one) for one in unknown.nearest],
    }
