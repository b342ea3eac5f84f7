"""A plan for a program: what is stored and owed, what it will cost, what the design can detect, as one JSON object."""

import json
from dataclasses import asdict
from typing import Any

from orchestrator.plan.cost import Cost
from orchestrator.plan.plan import Plan
from orchestrator.plan.sampling import recommendations, sampling_used


def plan_summary(plan: Plan, cost: Cost, store: str) -> dict[str, Any]:
    """The plan as one JSON object. `store`: the store the plan was computed from.

    The key `held` means stored; scripts read it, so it keeps its name.
    """
    # Imported here because scipy takes as long to import as everything else that a plan needs.
    from eval.power import detectable_loss, detectable_sentence

    grid, counts, tests = plan.resolved.grid, plan.counts, plan.comparisons
    seeds = len(grid.sampling.seeds)
    return {
        "name": grid.name,
        "store": store,
        "cells": plan.cells,
        "variants": plan.variants,
        "token_limits": list(grid.token_limits),
        "repeated_variants": [repeat.sentence for repeat in plan.repeats],
        "sampling": {"used": sampling_used(grid.sampling), "recommended": recommendations(plan.resolved)},
        "patches": {"held": plan.patches_stored, "owed": [variant.label for variant in plan.patches]},
        "draws": {"held": plan.draws_stored, "owed": plan.draws_owed},
        "draws_shared": plan.shared_draws,
        "draws_owed": {
            "new": counts.new,
            "continued_traces": counts.continued,
            "stored_traces_without_answers": counts.answered,
        },
        "answers_owed_to_stored_traces": counts.answers,
        "answers_to_grade": counts.grades,
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
                "draws_held": owed.draws - len(owed.numbers),
            }
            for owed in plan.contexts
        ],
        "detectable": {
            benchmark.name: {
                "questions": len(benchmark.problems),
                "seeds": seeds,
                "difference": detectable_loss(len(benchmark.problems), seeds, tests),
                "sentence": detectable_sentence(benchmark.name, len(benchmark.problems), seeds, tests),
            }
            for benchmark in plan.resolved.benchmarks
        },
    }


def plan_json(plan: Plan, cost: Cost, store: str) -> str:
    """One JSON object on one line."""
    return json.dumps(plan_summary(plan, cost, store))
