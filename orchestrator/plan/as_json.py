"""A plan as one JSON object: what is held and owed, what it will cost, and what the design can detect."""

import json
from dataclasses import asdict
from typing import Any

from orchestrator.plan.cost import Cost
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import ResolvedVariant


def plan_summary(plan: Plan, cost: Cost, store: str) -> dict[str, Any]:
    """The plan as one JSON object. `store`: where it was held against."""
    # Imported here: scipy takes as long as everything else that a plan needs.
    from eval.power import detectable_sentence, minimum_detectable_effect, planned_difference_sd

    grid, kinds, tests = plan.resolved.grid, plan.kinds, comparisons(plan)
    seeds = len(grid.sampling.seeds)
    return {
        "name": grid.name,
        "store": store,
        "cells": plan.cells,
        "variants": plan.variants,
        "token_limits": list(grid.token_limits),
        "repeated_variants": [repeat_sentence(*pair) for pair in plan.repeats],
        "patches": {"held": plan.patches_held, "owed": [variant.label for variant in plan.patches]},
        "draws": {"held": plan.draws_held, "owed": plan.draws_owed},
        "draws_shared": shared_draws(plan),
        "draws_owed": {
            "new": kinds.new,
            "continued_traces": kinds.continued,
            "stored_traces_without_answers": kinds.answered,
        },
        "answers_owed_to_stored_traces": kinds.answers,
        "answers_to_grade": kinds.grades,
        "thinking_tokens_at_most": sum(context.new_tokens for context in plan.contexts),
        "thinking_tokens_expected": cost.tokens,
        "bytes_expected": {"draws": cost.draw_bytes, "patches": cost.patch_bytes, "measured": cost.bytes_measured},
        "engine_seconds_expected": cost.engine_seconds,
        "models": {
            path: asdict(model) | {"engine_seconds": model.engine_seconds} for path, model in cost.models.items()
        },
        "contexts": [
            {
                "model": owed.variant.model_label,
                "variant": owed.variant.label,
                "patch": owed.variant.patch_id,
                "context": owed.decoding.context.context_id,
                "limits": list(owed.decoding.limits),
                "draws_owed": len(owed.numbers),
                "draws_held": len(owed.variant.distinct) * seeds - len(owed.numbers),
            }
            for owed in plan.contexts
        ],
        "detectable": {
            benchmark.name: {
                "questions": len(benchmark.problems),
                "seeds": seeds,
                "difference": minimum_detectable_effect(len(benchmark.problems), planned_difference_sd(seeds), tests),
                "sentence": detectable_sentence(benchmark.name, len(benchmark.problems), seeds, tests),
            }
            for benchmark in plan.resolved.benchmarks
        },
    }


def plan_json(plan: Plan, cost: Cost, store: str) -> str:
    """One JSON object on one line."""
    return json.dumps(plan_summary(plan, cost, store))


def repeat_sentence(variant: ResolvedVariant, first: ResolvedVariant) -> str:
    """One line for a variant that is counted once with the one before it."""
    return (
        f"line {variant.line}: {variant.label} has the same content as {first.label} on line {first.line}, and is "
        "counted once"
    )


def shared_draws(plan: Plan) -> int:
    """How many draws need not be made because another benchmark asks the same."""
    seeds = len(plan.resolved.grid.sampling.seeds)
    variants = {context.variant.patch_id: context.variant for context in plan.contexts}.values()
    return seeds * sum(len(variant.questions) - len(variant.distinct) for variant in variants)


def comparisons(plan: Plan) -> int:
    """How many tests against dense the design makes."""
    pruned = {variant.patch_id for variant in plan.resolved.variants if not variant.dense}
    return max(1, len(pruned) * len(plan.resolved.grid.token_limits) * len(plan.resolved.benchmarks))
