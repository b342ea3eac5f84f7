"""What a plan will cost: thinking tokens, disk, engine time. Pure. Every estimate carries its basis.

Trace lengths come from stored traces where there are any (orchestrator/scheduler/work.py). A rate is never assumed:
without a measured one, the time is unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb, log2

from orchestrator.plan.plan import OwedContext, Plan
from orchestrator.plan.resolved_grid import ResolvedVariant
from orchestrator.plan.throughput import StoreRates, Throughput
from orchestrator.scheduler.work import LengthEstimator
from pruning.methods import METHODS
from pruning.spec import n_of_m

BYTES_PER_TOKEN = 4.0
"""On disk, ids and text together. Measured on English prose: 3.0 for traces of 4,000 tokens, 4.0 for 500."""

MAY_BE_OFF = 3
"""Times that an estimate from few draws may be too long or too short."""
VALUE_BYTES = {"float32": 4}
"""Bytes of one weight by dtype; 2 for every other dtype."""


@dataclass(frozen=True)
class ModelCost:
    """The cost of what one model owes."""

    tokens: int
    """Expected thinking tokens."""
    seen: int
    """How many stored traces the expectation rests on; questions without any use their benchmark's default."""
    rate: float | None
    """Thinking tokens per engine-second, or None: no engine has generated enough of this model's traces yet."""
    rate_draws: int
    """How many draws the rate was measured on."""
    rough: bool = False
    """Whether those were few: the time may be off by `MAY_BE_OFF`."""

    @property
    def engine_seconds(self) -> float | None:
        return self.tokens / self.rate if self.rate else None


@dataclass(frozen=True)
class Cost:
    """What a plan will cost."""

    models: Mapping[str, ModelCost]
    """Model path -> its cost, for models that owe draws."""
    draw_bytes: int
    patch_bytes: int
    bytes_measured: bool
    """Whether bytes per token were measured on the store's own files."""

    @property
    def tokens(self) -> int:
        return sum(model.tokens for model in self.models.values())

    @property
    def engine_seconds(self) -> float | None:
        """None if any model's rate is unknown."""
        known = [model.engine_seconds for model in self.models.values()]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)


def cost(plan: Plan, rates: StoreRates) -> Cost:
    """Estimate what `plan` costs."""
    by_model: dict[str, list[OwedContext]] = {}
    for owed in plan.contexts:
        by_model.setdefault(owed.variant.model_path, []).append(owed)
    models = {}
    for path, contexts in by_model.items():
        if any(owed.numbers for owed in contexts):
            tokens, seen = expected_tokens(contexts)
            throughput = rates.throughputs.get(path, Throughput())
            models[path] = ModelCost(tokens, seen, throughput.rate, throughput.draws, throughput.rough)
    measured = rates.tokens > 0
    per_token = rates.file_bytes / rates.tokens if measured else BYTES_PER_TOKEN
    draw_bytes = round(per_token * sum(model.tokens for model in models.values()))
    return Cost(models, draw_bytes, sum(map(patch_bytes, plan.patches)), measured)


def length_estimator(variant: ResolvedVariant) -> LengthEstimator:
    """The estimator of the variant's model, before any trace has been observed."""
    questions = variant.distinct
    return LengthEstimator([q.benchmark for q in questions], [q.typical_tokens for q in questions])


def expected_tokens(contexts: Iterable[OwedContext]) -> tuple[int, int]:
    """Thinking tokens that one model's contexts are expected to take, and the number of stored traces behind it."""
    contexts = list(contexts)
    lengths = length_estimator(contexts[0].variant)
    unseen = lengths.expect()
    longest = max(owed.limit for owed in contexts)
    for owed in contexts:
        if owed.stored is not None:
            for number, tokens in enumerate(owed.stored.lengths):
                question, length = number // len(owed.seeds), tokens
                if number in owed.stored.unfinished or tokens >= owed.limit:  # cut: its full length is unknown
                    length = min(longest, max(tokens, round(unseen[question])))
                if tokens >= 0:
                    lengths.observe(question, length)
    expected: list[float] = lengths.expect().tolist()
    untouched: dict[int, float] = {}
    total = 0.0
    for owed in contexts:
        if owed.stored is not None:
            total += sum(_remaining(owed, number, expected[number // len(owed.seeds)]) for number in owed.numbers)
            continue
        if owed.limit not in untouched:
            untouched[owed.limit] = sum(min(length, owed.limit) for length in expected)
        total += len(owed.seeds) * untouched[owed.limit]
    return round(total), lengths.observed


def _remaining(owed: OwedContext, number: int, length: float) -> float:
    """Expected new tokens of one draw of a context that is stored in part.

    A trace that is already longer than expected is expected to reach its limit.
    """
    assert owed.stored is not None
    if number not in owed.stored.owed_limits:
        return min(length, owed.limit)
    if number not in owed.stored.unfinished:
        return 0.0
    stored, limit = max(0, owed.stored.lengths[number]), max(owed.stored.owed_limits[number])
    return min(length, limit) - stored if length > stored else limit - stored


def patch_bytes(variant: ResolvedVariant) -> int:
    """Expected size of a variant's patch in bytes.

    The entropy of its keep bits, which pruning/patch/codec.py comes close to, and the kept weights where the method
    changes them. What a checkpoint changed is not known before it is compared: its patch is at most all of it.
    """
    spec, value_bytes = variant.spec, VALUE_BYTES.get(variant.decodings[0].context.shape.dtype, 2)
    if METHODS[spec.method].reads_checkpoint:
        return variant.prunable * value_bytes
    if spec.sparsity is None:
        return 0  # dense, or whole blocks: only a manifest
    dropped = spec.sparsity
    if spec.pattern:
        few, many = n_of_m(spec.pattern)
        bits = log2(comb(many, few)) / many
    else:
        bits = -sum(share * log2(share) for share in (dropped, 1 - dropped) if share > 0)
    values = value_bytes if METHODS[spec.method].updates_weights else 0
    return round(variant.prunable * (bits / 8 + values * (1 - dropped)))
