"""What `plan` prints: what is held and owed, what it will cost at most, and what the design can detect."""

import json
from typing import Any

from orchestrator.plan import Plan


def plan_summary(plan: Plan) -> dict[str, Any]:
    """The plan as one JSON object."""
    # Imported here: scipy takes as long as everything else that a plan needs.
    from eval.power import detectable_sentence, minimum_detectable_effect, planned_difference_sd

    grid = plan.survey.grid
    seeds = len(grid.sampling.seeds)
    comparisons = sum(not v.dense for v in plan.survey.variants) * len(grid.token_limits) * len(plan.survey.benchmarks)
    return {
        "name": grid.name,
        "store": grid.store,
        "cells": plan.cells,
        "variants": len(plan.survey.variants),
        "token_limits": list(grid.token_limits),
        "patches": {
            "held": len({v.patch_id for v in plan.survey.variants}) - len(plan.patches),
            "owed": [variant.label for variant in plan.patches],
        },
        "draws": {"held": plan.draws_held, "owed": plan.draws_owed},
        "answers_to_grade": sum(context.ungraded for context in plan.contexts),
        "thinking_tokens_at_most": sum(context.new_tokens for context in plan.contexts),
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
                "difference": minimum_detectable_effect(
                    len(benchmark.problems), planned_difference_sd(seeds), max(1, comparisons)
                ),
                "sentence": detectable_sentence(benchmark.name, len(benchmark.problems), seeds, max(1, comparisons)),
            }
            for benchmark in plan.survey.benchmarks
        },
    }


def plan_json(plan: Plan) -> str:
    """One JSON object on one line."""
    return json.dumps(plan_summary(plan))


def plan_text(plan: Plan) -> str:
    """The plan for a person."""
    summary = plan_summary(plan)
    patches, draws = summary["patches"], summary["draws"]
    lines = [
        f"{summary['name']}: {summary['cells']} cells = {summary['variants']} variants × "
        f"{len(summary['token_limits'])} token limits on {len(summary['detectable'])} benchmarks; "
        f"store {summary['store']}",
        f"  patches   {patches['held']:>7} held  {len(patches['owed']):>7} owed",
        f"  draws     {draws['held']:>7} held  {draws['owed']:>7} owed, at most "
        f"{summary['thinking_tokens_at_most']:,} thinking tokens (one trace serves every limit)",
        f"  answers   {summary['answers_to_grade']:>7} to grade",
        "",
        f"  {'variant':<44} {'held':>7} {'owed':>7}  context",
    ]
    for row in summary["contexts"]:
        label = f"{row['model']}: {row['variant']}"
        lines.append(f"  {label:<44} {row['draws_held']:>7} {row['draws_owed']:>7}  {row['context']}")
    lines += ["", *(f"  {row['sentence']}" for row in summary["detectable"].values())]
    return "\n".join(lines)
