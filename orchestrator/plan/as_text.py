"""What `plan` prints for a person: one screen, however large the grid."""

from collections.abc import Iterator, Sequence

from orchestrator.plan.as_json import comparisons, repeat_sentence, shared_draws
from orchestrator.plan.cost import BYTES_PER_TOKEN, Cost, ModelCost
from orchestrator.plan.plan import OwedCounts, Plan
from orchestrator.plan.resolve import ResolvedVariant

WIDTH = 118
"""Columns that lists of names may take."""
ROWS = 16
"""Rows of variants at most: variants that stand alike share one."""


def plan_text(plan: Plan, cost: Cost, store: str) -> str:
    """The plan for a person. `store`: where it was held against."""
    blocks = [_head(plan, store), _owed(plan), _costs(plan, cost), _table(plan), _detectable(plan)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _head(plan: Plan, store: str) -> Iterator[str]:
    grid, benchmarks = plan.resolved.grid, plan.resolved.benchmarks
    yield (
        f"{grid.name}: {_many(plan.cells, 'cell')} = {_many(plan.variants, 'variant')} × "
        f"{_many(len(grid.token_limits), 'token limit')}, on {_many(len(benchmarks), 'benchmark')} with "
        f"{_many(len(grid.sampling.seeds), 'seed')}; store {store}"
    )
    for pair in plan.repeats[:ROWS]:
        yield f"  {repeat_sentence(*pair)}"
    if len(plan.repeats) > ROWS:
        yield f"  and {len(plan.repeats) - ROWS} further variants of this kind"


def _owed(plan: Plan) -> Iterator[str]:
    kinds = plan.kinds
    yield f"  {'':<9} {'held':>10} {'owed':>10}"
    yield f"  {'patches':<9} {plan.patches_held:>10,} {len(plan.patches):>10,}"
    yield f"  {'draws':<9} {plan.draws_held:>10,} {plan.draws_owed:>10,}  {_kinds(kinds)}".rstrip()
    if shared := shared_draws(plan):
        yield f"  {'':<31}  without {shared:,} that another benchmark's question is the same as"
    if kinds.grades:
        yield f"  {'grades':<9} {'':>10} {kinds.grades:>10,}  stored answers that the grader has not judged"


def _kinds(kinds: OwedCounts) -> str:
    told = [f"{kinds.new:,} new"] if kinds.new else []
    if kinds.continued:
        told.append(f"{_many(kinds.continued, 'stored trace')} to be continued")
    if kinds.answered:
        told.append(f"{_many(kinds.answers, 'answer')} to {_many(kinds.answered, 'stored trace')}")
    return ", ".join(told)


def _costs(plan: Plan, cost: Cost) -> Iterator[str]:
    if not plan.draws_owed:
        yield "  nothing is owed" if plan.nothing_owed else "  only grades are owed, and they need no engine"
        return
    yield f"  tokens    {_tokens(plan, cost)}"
    sizes = [f"{_size(cost.patch_bytes)} of patches"] if plan.patches else []
    if cost.tokens:
        token = "as draws take in this store" if cost.bytes_measured else f"{BYTES_PER_TOKEN:.0f} bytes a token"
        sizes.insert(0, f"{_size(cost.draw_bytes)} of draws ({token})")
    if sizes:
        yield f"  disk      about {' and '.join(sizes)}"
    several = len({variant.model_path for variant in plan.resolved.variants}) > 1
    title = "time"
    for path, model in cost.models.items():
        if model.tokens:
            label = next(v.model_label for v in plan.resolved.variants if v.model_path == path)
            yield f"  {title:<9} {label + ': ' if several else ''}{_time(plan, model)}"
            title = ""


def _tokens(plan: Plan, cost: Cost) -> str:
    most = sum(context.new_tokens for context in plan.contexts)
    if not most:
        return "no thinking: the stored traces serve what is owed"
    seen = sum(model.seen for model in cost.models.values())
    basis = f"by {_many(seen, 'stored trace')}" if seen else "by what its benchmarks usually take: nothing is stored"
    about = f"about {float(f'{cost.tokens:.3g}'):,.0f}, at most {most:,}" if cost.tokens < most else f"at most {most:,}"
    return f"{about} of thinking ({basis})"


def _time(plan: Plan, model: ModelCost) -> str:
    runtime = plan.resolved.grid.runtime
    if model.engine_seconds is None or model.rate is None:
        return (
            f"not known: no engine has made {2 * runtime.in_flight} draws in a row (2 × in_flight) into this store; "
            "plan again once one has"
        )
    engines = runtime.engines or 1
    on = f", {_span(model.engine_seconds / engines)} on {engines}" if engines > 1 else ""
    return (
        f"about {_span(model.engine_seconds)} on one engine{on}, patches aside (by {model.rate:,.0f} tokens/s over "
        f"{model.rate_draws:,} stored draws)"
    )


def _table(plan: Plan) -> Iterator[str]:
    """A row for all variants of a model that stand alike: those in progress, those not begun, those complete."""
    held: dict[str, int] = {}
    owed: dict[str, int] = {}
    variants: dict[str, ResolvedVariant] = {}
    for context in plan.contexts:
        name = context.variant.patch_id
        variants[name] = context.variant
        draws = len(context.variant.distinct) * len(context.seeds)
        owed[name] = owed.get(name, 0) + len(context.numbers)
        held[name] = held.get(name, 0) + draws - len(context.numbers)
    rows: dict[tuple[str, int, int], list[str]] = {}
    for name, variant in variants.items():
        rows.setdefault((variant.model_label, held[name], owed[name]), []).append(variant.label)
    several = len({model for model, _, _ in rows}) > 1
    ordered = sorted(rows.items(), key=lambda row: (not row[0][2], not row[0][1]))
    yield f"  {'held':>10} {'owed':>10}  variants"
    for (model, have, lack), labels in ordered[:ROWS]:
        count = f"{len(labels)} × " if len(labels) > 1 else ""
        yield _clipped(f"  {have:>10,} {lack:>10,}  {count}{model + ': ' if several else ''}", labels)
    if rest := ordered[ROWS:]:
        yield f"  {'':>10} {'':>10}  and {sum(len(labels) for _, labels in rest)} further variants; `explain` lists all"


def _clipped(start: str, names: Sequence[str]) -> str:
    """As many of `names` as fit."""
    text = start + names[0]
    for number, name in enumerate(names[1:], 1):
        rest = f", and {len(names) - number} more"
        if len(text) + len(f", {name}") + (len(rest) if number < len(names) - 1 else 0) > WIDTH:
            return text + rest
        text += f", {name}"
    return text


def _detectable(plan: Plan) -> Iterator[str]:
    """A line for all benchmarks of one size: seeds and comparisons are the same for all."""
    from eval.power import detectable_sentence

    sizes: dict[int, list[str]] = {}
    for benchmark in plan.resolved.benchmarks:
        sizes.setdefault(len(benchmark.problems), []).append(benchmark.name)
    seeds, tests = len(plan.resolved.grid.sampling.seeds), comparisons(plan)
    for questions, names in sizes.items():
        yield f"  {detectable_sentence(_listed(names), questions, seeds, tests)}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"each of {', '.join(names[:-1])} and {names[-1]}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _size(count: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{_short(count / size)} {unit}"
    return f"{count:.0f} bytes"


def _span(seconds: float) -> str:
    for least, size, unit in ((2 * 86_400, 86_400, "days"), (5_400, 3_600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"{_short(seconds / size)} {unit}"
    return f"{seconds:.0f} s"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
