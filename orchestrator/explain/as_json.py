"""What `explain` found, for a program: one JSON object."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.explain.explain import CellStatus, ContextReport, DrawReport, Explanation, UnknownId
from orchestrator.explain.reasons import Reason
from orchestrator.explain.similar import SimilarEntry


def explanation_json(told: Explanation) -> str:
    """One JSON object on one line."""
    value = {
        "name": told.grid,
        "store": told.store,
        "what": told.what,
        "grader": told.grader,
        "cells": [_cell_json(cell) for cell in told.cells],
        "contexts": [_context_json(story) for story in told.contexts],
        "given_up": [vars(group) for group in told.failures],
        "contexts_of_other_grids": told.contexts_outside_grid,
        "foreign": None if told.foreign is None else _foreign_json(told.foreign),
    }
    return json.dumps(value)


def _cell_json(cell: CellStatus) -> dict[str, Any]:
    return {
        "model": cell.chosen.variant.model_label,
        "variant": cell.chosen.variant.label,
        "limit": cell.limit,
        "patch": cell.chosen.variant.patch_id,
        "context": cell.chosen.decoding.context.context_id,
        "state": cell.state,
        "draws": cell.draws,
        "cached": cell.cached,
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


def _context_json(story: ContextReport) -> dict[str, Any]:
    context = story.chosen.decoding.context
    return {
        "context": context.context_id,
        "answers": context.answer_context_id,
        "patch": context.patch_id,
        "patch_held": story.patch_held,
        "held": None if story.held is None else vars(story.held),
        "look_alikes": [_look_alike_json(one) for one in story.similar_entries],
        "draw": None if story.draw is None else _draw_json(story.draw),
    }


def _draw_json(draw: DrawReport) -> dict[str, Any]:
    return {
        "name": draw.name,
        "limits": [
            {
                "limit": one.limit,
                "why": "given-up" if one.failure is not None else one.why.value,
                "cut": one.cut,
                "verdict": one.grade.verdict if one.grade is not None else None,
            }
            for one in draw.standings
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


def _look_alike_json(one: SimilarEntry) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "id": one.name,
        "variant": one.label,
        "differences": [vars(difference) | {"words": difference.words} for difference in one.differences],
    }


def _foreign_json(foreign: UnknownId) -> dict[str, Any]:
    return {
        "kind": foreign.kind,
        "id": foreign.name,
        "variant": foreign.label,
        "draws": foreign.draws,
        "nearest": [_look_alike_json(one) for one in foreign.nearest],
    }
