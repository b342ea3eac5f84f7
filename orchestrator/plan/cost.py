"""What a plan will cost: thinking tokens, disk, engine time. Pure; estimates, and each says what it stands on.

Lengths come from the store's traces where there are any (orchestrator/scheduler/lengths.py). A rate is never assumed:
where the store does not tell one, the time is not known.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb, log2

from orchestrator.plan.plan import OwedContext, Plan
from orchestrator.plan.resolve import ResolvedVariant
from orchestrator.plan.throughput import StoreRates
from orchestrator.scheduler.lengths import LengthEstimator

TYPICAL_TOKENS: Mapping[str, float] = {"AIME24": 10_000, "AMC23": 6_000, "GPQA-Diamond": 6_000, "MATH-500": 3_500}
"""Thinking tokens of 7-8 B reasoning models on the built-in benchmarks, roughly: only their order is relied on."""

OTHERWISE = 4_000.0
"""For a benchmark of the user's own, until its first draws are in."""

BYTES_PER_TOKEN = 4.0
"""Of a part, with token ids and text: 3.0 were measured for traces of 4,000 tokens of English prose, 4.0 for 500."""

VALUE_BYTES = {"float32": 4}
"""Of one stored weight; 2 for every other dtype."""


@dataclass(frozen=True)
class ModelCost:
    """What is owed of one model."""

    tokens: int
    """Thinking tokens that are expected."""
    seen: int
    """How many stored traces the expectation stands on; the benchmarks' defaults fill in for questions without."""
    rate: float | None
    """Thinking tokens per second and engine, or None: no engine has made enough of this model's traces yet."""
    rate_draws: int
    """How many draws tell the rate."""

    @property
    def engine_seconds(self) -> float | None:
        return self.tokens / self.rate if self.rate else None


@dataclass(frozen=True)
class Cost:
    """What a plan will cost."""

    models: Mapping[str, ModelCost]
    """Model path -> its share; only models that owe draws."""
    draw_bytes: int
    patch_bytes: int
    bytes_measured: bool
    """Whether the store's own files tell how much room a token takes."""

    @property
    def tokens(self) -> int:
        return sum(model.tokens for model in self.models.values())

    @property
    def engine_seconds(self) -> float | None:
        """None if any model's rate is not known."""
        known = [model.engine_seconds for model in self.models.values()]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)


def cost(plan: Plan, experience: StoreRates) -> Cost:
    """Estimate what `plan` costs."""
    by_model: dict[str, list[OwedContext]] = {}
    for owed in plan.contexts:
        by_model.setdefault(owed.variant.model_path, []).append(owed)
    models = {}
    for path, contexts in by_model.items():
        if any(owed.numbers for owed in contexts):
            tokens, seen = expected_tokens(contexts)
            measure = experience.paces.get(path)
            models[path] = ModelCost(tokens, seen, measure.rate if measure else None, measure.draws if measure else 0)
    measured = experience.tokens > 0
    per_token = experience.file_bytes / experience.tokens if measured else BYTES_PER_TOKEN
    draw_bytes = round(per_token * sum(model.tokens for model in models.values()))
    return Cost(models, draw_bytes, sum(map(patch_bytes, plan.patches)), measured)


def length_estimator(variant: ResolvedVariant) -> LengthEstimator:
    """What is expected of the traces of the variant's model before any has been observed."""
    benchmarks = [question.benchmark for question in variant.distinct]
    return LengthEstimator(benchmarks, [TYPICAL_TOKENS.get(name, OTHERWISE) for name in benchmarks])


def expected_tokens(contexts: Iterable[OwedContext]) -> tuple[int, int]:
    """Thinking tokens that one model's contexts are expected to take, and how many stored traces tell."""
    contexts = list(contexts)
    lengths = length_estimator(contexts[0].variant)
    unseen = lengths.expect()
    longest = max(owed.limit for owed in contexts)
    for owed in contexts:
        if owed.held is not None:
            for number, tokens in enumerate(owed.held.lengths):
                question, length = number // len(owed.seeds), tokens
                if number in owed.held.unfinished or tokens >= owed.limit:  # it was cut: how long it is, is not known
                    length = min(longest, max(tokens, round(unseen[question])))
                if tokens >= 0:
                    lengths.observe(question, length)
    whole: list[float] = lengths.expect().tolist()
    untouched: dict[int, float] = {}
    total = 0.0
    for owed in contexts:
        if owed.held is not None:
            total += sum(_remaining(owed, number, whole[number // len(owed.seeds)]) for number in owed.numbers)
            continue
        if owed.limit not in untouched:
            untouched[owed.limit] = sum(min(length, owed.limit) for length in whole)
        total += len(owed.seeds) * untouched[owed.limit]
    return round(total), lengths.observed


def _remaining(owed: OwedContext, number: int, length: float) -> float:
    """Expected new tokens of one draw of a context that holds something. A trace that outlasted what was expected of it
    is expected to reach its limit."""
    assert owed.held is not None
    if number not in owed.held.owed_limits:
        return min(length, owed.limit)
    if number not in owed.held.unfinished:
        return 0.0
    begun, limit = max(0, owed.held.lengths[number]), max(owed.held.owed_limits[number])
    return min(length, limit) - begun if length > begun else limit - begun


def patch_bytes(variant: ResolvedVariant) -> int:
    """How large a variant's patch will be: the information in its keep bits, which pruning/patch/codec.py comes close
    to, and the kept weights where the method changes them."""
    spec = variant.spec
    if spec.sparsity is None:
        return 0  # dense, or whole blocks: only a manifest
    dropped = spec.sparsity
    if spec.pattern:
        few, many = map(int, spec.pattern.split(":"))
        bits = log2(comb(many, few)) / many
    else:
        bits = -sum(share * log2(share) for share in (dropped, 1 - dropped) if share > 0)
    values = VALUE_BYTES.get(variant.decodings[0].context.shape.dtype, 2) if spec.method == "sparsegpt" else 0
    return round(variant.prunable * (bits / 8 + values * (1 - dropped)))
