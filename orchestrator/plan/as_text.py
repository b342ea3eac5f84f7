"""A plan for a person: one screen, however large the grid."""

from collections.abc import Iterator, Sequence

from orchestrator.console import plural
from orchestrator.plan.cost import BYTES_PER_TOKEN, MAY_BE_OFF, Cost, ModelCost
from orchestrator.plan.plan import OwedCounts, Plan
from orchestrator.plan.resolved_grid import ResolvedGrid, ResolvedVariant
from orchestrator.plan.sampling import differs, recommendations, sampling_used, sampling_words

WIDTH = 118
"""Columns; longer lists of names are cut."""
ROWS = 16
"""Most rows of variants; variants with the same counts share a row."""


def plan_text(plan: Plan, cost: Cost, store: str) -> str:
    """The plan for a person. `store`: the store the plan was computed from."""
    blocks = [_head(plan, store), _owed(plan), _costs(plan, cost), _table(plan), _detectable(plan), _sampling(plan)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _head(plan: Plan, store: str) -> Iterator[str]:
    grid, benchmarks = plan.resolved.grid, plan.resolved.benchmarks
    yield (
        f"{grid.name}: {plural(plan.cells, 'cell')} = {plural(plan.variants, 'variant')} × "
        f"{plural(len(grid.token_limits), 'token limit')}, on {plural(len(benchmarks), 'benchmark')} with "
        f"{plural(len(grid.sampling.seeds), 'seed')}; store {store}"
    )
    for warning in plan.resolved.warnings:
        yield f"  warning: {warning}"
    for line in awaiting_lines(plan.resolved):
        yield f"  {line}"
    for repeat in plan.repeats[:ROWS]:
        yield f"  {repeat.sentence}"
    if len(plan.repeats) > ROWS:
        yield f"  and {len(plan.repeats) - ROWS} further variants like these"


def awaiting_lines(resolved: ResolvedGrid) -> Iterator[str]:
    """What cannot be planned yet, a line for each set of traces."""
    for request in resolved.requests:
        waiting = [one for one in resolved.awaiting if request.name in {needed.name for needed in one.requests}]
        yield (
            f"{plural(len(waiting), 'variant')} on top of these, to be calibrated on {request.what} "
            f"({request.tokens:,} tokens), which the sweep draws first"
        )


def _owed(plan: Plan) -> Iterator[str]:
    counts = plan.counts
    yield f"  {'':<9} {'stored':>10} {'owed':>10}"
    yield f"  {'patches':<9} {plan.patches_stored:>10,} {len(plan.patches):>10,}"
    yield f"  {'draws':<9} {plan.draws_stored:>10,} {plan.draws_owed:>10,}  {_counts_text(counts)}".rstrip()
    if shared := plan.shared_draws:
        yield f"  {'':<31}  without {shared:,} for questions that another benchmark asks, too"
    if counts.grades:
        yield f"  {'grades':<9} {'':>10} {counts.grades:>10,}  stored answers that the grader has not judged"


def _counts_text(counts: OwedCounts) -> str:
    parts = [f"{counts.new:,} new"] if counts.new else []
    if counts.continued:
        parts.append(f"{plural(counts.continued, 'stored trace')} to be continued")
    if counts.answered:
        parts.append(f"{plural(counts.answers, 'answer')} to {plural(counts.answered, 'stored trace')}")
    return ", ".join(parts)


def _costs(plan: Plan, cost: Cost) -> Iterator[str]:
    if not plan.draws_owed:
        yield "  nothing is owed" if plan.nothing_owed else "  only grades are owed, which need no engine"
        return
    yield f"  tokens    {_tokens(plan, cost)}"
    sizes = [f"{_size(cost.patch_bytes)} of patches"] if plan.patches else []
    if cost.tokens:
        rate = "as measured in this store" if cost.bytes_measured else f"{BYTES_PER_TOKEN:.0f} bytes a token"
        sizes.insert(0, f"{_size(cost.draw_bytes)} of draws ({rate})")
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
        return "none: only answers to stored traces are owed"
    seen = sum(model.seen for model in cost.models.values())
    basis = f"by {plural(seen, 'stored trace')}" if seen else "by the benchmarks' usual lengths: nothing is stored"
    about = f"about {float(f'{cost.tokens:.3g}'):,.0f}, at most {most:,}" if cost.tokens < most else f"at most {most:,}"
    return f"{about} for thinking ({basis})"


def _time(plan: Plan, model: ModelCost) -> str:
    runtime = plan.resolved.grid.runtime
    if model.engine_seconds is None or model.rate is None:
        return "unknown until an engine has committed a few draws to this store; plan again then"
    engines = runtime.engines or 1
    on = f", {_span(model.engine_seconds / engines)} on {engines}" if engines > 1 else ""
    rate = f"{model.rate:,.0f} tokens/s, the rate of {model.rate_draws:,} stored draws"
    if model.rough:
        few = f"the rate of {model.rate_draws:,} stored draws, which are few: it may be off by {MAY_BE_OFF} times"
        rate = f"{model.rate:,.0f} tokens/s, {few}"
    return f"about {_span(model.engine_seconds)} on one engine{on}, without pruning (at {rate})"


def _table(plan: Plan) -> Iterator[str]:
    """One row per model and pair of counts: first variants in progress, then those not begun, then complete ones."""
    stored: dict[str, int] = {}
    owed: dict[str, int] = {}
    variants: dict[str, ResolvedVariant] = {}
    for context in plan.contexts:
        name = context.variant.patch_id
        variants[name] = context.variant
        owed[name] = owed.get(name, 0) + len(context.numbers)
        stored[name] = stored.get(name, 0) + context.draws - len(context.numbers)
    rows: dict[tuple[str, int, int], list[str]] = {}
    for name, variant in variants.items():
        rows.setdefault((variant.model_label, stored[name], owed[name]), []).append(variant.label)
    several = len({model for model, _, _ in rows}) > 1
    ordered = sorted(rows.items(), key=lambda row: (not row[0][2], not row[0][1]))
    yield f"  {'stored':>10} {'owed':>10}  variants"
    for (model, done, left), labels in ordered[:ROWS]:
        count = f"{len(labels)} × " if len(labels) > 1 else ""
        yield _clipped(f"  {done:>10,} {left:>10,}  {count}{model + ': ' if several else ''}", labels)
    if rest := ordered[ROWS:]:
        yield f"  {'':>10} {'':>10}  and {sum(len(labels) for _, labels in rest)} further variants; `explain` lists all"


def _clipped(start: str, names: Sequence[str]) -> str:
    """`start` and as many of `names` as fit on a line."""
    text = start + names[0]
    for number, name in enumerate(names[1:], 1):
        rest = f", and {len(names) - number} more"
        if len(text) + len(f", {name}") + (len(rest) if number < len(names) - 1 else 0) > WIDTH:
            return text + rest
        text += f", {name}"
    return text


def _detectable(plan: Plan) -> Iterator[str]:
    """One line for all benchmarks of one size, since seeds and comparisons are the same for all."""
    from eval.power import detectable_sentence

    sizes: dict[int, list[str]] = {}
    for benchmark in plan.resolved.benchmarks:
        sizes.setdefault(len(benchmark.problems), []).append(benchmark.name)
    seeds, tests = len(plan.resolved.grid.sampling.seeds), plan.comparisons
    for questions, names in sizes.items():
        yield f"  {detectable_sentence(_listed(names), questions, seeds, tests)}"


def _sampling(plan: Plan) -> Iterator[str]:
    """How tokens are sampled, and each model that recommends otherwise."""
    sampling = plan.resolved.grid.sampling
    yield f"  sampling  {sampling_words(sampling_used(sampling))}"
    for model, recommended in recommendations(plan.resolved).items():
        if differs(sampling, recommended):
            words = sampling_words(recommended)
            yield f"  {'':<9} {model} recommends {words} (generation_config.json), which is not used"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"each of {', '.join(names[:-1])} and {names[-1]}"


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
