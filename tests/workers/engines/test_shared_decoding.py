"""One decode for all limits, on the real engine: a cut of a long trace answers as a trace of its own would have.

Greedy decoding leaves nothing to chance but rounding: a batch of another composition can flip a near-tie. So every
difference is put before transformers in float32: unless both tokens are as good as the best there, the test fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from eval.budget import start
from eval.draws import Answer, DrawJob, PriorTrace, answer_for
from eval.modes import make_rules
from eval.prompts import ChatTokenizer
from eval.rules import Rules, natural_end, trace_stops
from orchestrator.grid.parse import parse_grid
from orchestrator.grid.source import GridSource
from orchestrator.plan.plan import Plan, StoredState, make_plan
from orchestrator.plan.resolve import resolve_grid
from orchestrator.store.store import Store
from tests.workers.engines.conftest import MakePatch, OneEngine
from workers.eval_worker import EvalWorker
from workers.evaluation import FeedSettings
from workers.messages import Shard
from workers.rows.draw_rows import COLUMNS, JoinedDraw, join_rows
from workers.worker import Inbox

PROBLEMS = 24
REFERENCED = 6
"""Problems whose traces transformers generates too."""
LIMITS = (8, 16, 32, 64)
NEAR_TIE = 0.25
"""Logits. The engine computes in bfloat16, whose steps are 0.03 to 0.125 at the size of these logits (5 to 25)."""
MODES = {
    "native-strict": {"mode": "native-strict", "answer_tokens": 16},
    # Uncapped, an answer that never ends fills the context; the cap keeps the test short.
    "s1-legacy": {"mode": "s1-legacy", "answer_tokens": 24},
}

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Decoded:
    """What the store holds when every limit is served: prompt ids -> limit -> the draw that serves it."""

    draws: Mapping[Tokens, Mapping[int, JoinedDraw]]
    trace_tokens: int
    """Generated, over all draws."""

    def spoken(self, rules: Rules, prompt: Tokens, limit: int) -> list[tuple[Tokens, Tokens]]:
        """The two phases at a limit, each as (everything the model read, what it wrote)."""
        trace = self.draws[prompt][limit].trace
        thinking = trace.token_ids[:limit]
        written = self.answer(prompt, limit).token_ids
        opening = rules.tags.opening if rules.tags is not None else ()
        prior = PriorTrace(trace.token_ids, trace.ended, trace.limit, trace.waits)
        asks = start(rules, DrawJob("", prompt, 0, (limit,), prior)).asks
        return [(prompt + opening, thinking), *((ask.prompt_ids, tuple(written)) for ask in asks)]

    def answer(self, prompt: Tokens, limit: int) -> Answer:
        draw = self.draws[prompt][limit]
        stored = answer_for(limit, len(draw.trace.token_ids), draw.trace.ended, draw.answers)
        assert stored is not None, "the store owes this answer"
        return Answer(**{field.name: stored[field.name] for field in fields(Answer)})


class Decoder:
    """Evaluates the first problems of the shipped benchmark with the real engine, worker and store."""

    def __init__(self, engine: OneEngine, tiny: Path, patch: Path, folder: Path) -> None:
        self._engine, self._tiny, self._patch, self._folder = engine, tiny, patch, folder
        lines = (tiny.parent / "chain-mixed.jsonl").read_text().splitlines(keepends=True)[:PROBLEMS]
        self._benchmark = folder / "problems.jsonl"
        self._benchmark.write_text("".join(lines))
        self._tokenizer = ChatTokenizer.load(tiny)

    def rules(self, mode: str) -> Rules:
        return make_rules(self._plan(mode, False).resolved.grid.budget, self._tokenizer, self._tokenizer.eos_ids, 512)

    def decode(self, mode: str, independent: bool) -> Decoded:
        plan = self._plan(mode, independent)
        store = Store.open(str(self._folder / f"{mode}-{independent}"))
        store.publish_patch(self._patch, plan.resolved.variants[0].patch_id)
        worker = EvalWorker("engine", self._engine(self._tiny), store, self._tiny, self._folder, FeedSettings())
        draws: dict[Tokens, dict[int, JoinedDraw]] = {}
        tokens = 0
        for owed in plan.contexts:
            context = owed.decoding.context
            shard = Shard(context.context_id, context, owed.items(owed.numbers))
            list(worker.run(shard, Inbox()))
            rows = store.read("draws", context.context_id, COLUMNS).to_pylist()
            joined = join_rows(rows, context.answer_context_id)
            tokens += sum(len(draw.trace.token_ids) for draw in joined.values())
            for item in shard.items:
                serves = dict.fromkeys(owed.decoding.limits, joined[(item.prompt_id, 0)])
                draws.setdefault(item.job.prompt_ids, {}).update(serves)
        return Decoded(draws, tokens)

    def _plan(self, mode: str, independent: bool) -> Plan:
        value = dict(
            name="shared", store=str(self._folder), models=[str(self._tiny)], variants=[{"method": "dense"}],
            token_limits=list(LIMITS), benchmarks=[str(self._benchmark)], sampling={"temperature": 0.0},
            budget=MODES[mode] | {"independent_limits": independent},
        )  # fmt: skip
        return make_plan(resolve_grid(parse_grid(GridSource("shared decoding", value, {}))), StoredState())


class Reference:
    """transformers, in float32: knows neither vLLM nor our budgets."""

    def __init__(self, model: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    @torch.inference_mode()
    def shortfall(self, read: Tokens, tokens: tuple[int, int]) -> float:
        """By how much the worse of two next tokens falls short of the best one, in logits."""
        logits = self._model(torch.tensor([read])).logits[0, -1]
        return float(logits.max() - logits[list(tokens)].min())

    def greedy(self, read: Tokens, count: int, stops: Tokens) -> Tokens:
        """What follows `read`: at most `count` tokens, through the first of `stops`."""
        ids = torch.tensor([read])
        made = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            eos_token_id=list(stops), pad_token_id=stops[0],
        )  # fmt: skip
        return tuple(made[0, len(read) :].tolist())

    def flip(self, read: Tokens, one: Tokens, other: Tokens) -> float | None:
        """None if two continuations of `read` agree, else the shortfall where they part."""
        if one == other:
            return None
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        assert at is not None, f"one continuation is a beginning of the other: {one} and {other}; no rounding does that"
        return self.shortfall(read + one[:at], (one[at], other[at]))


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    return Reference(tiny)


@pytest.fixture
def decoder(engine: OneEngine, tiny: Path, make_patch: MakePatch, tmp_path: Path) -> Decoder:
    return Decoder(engine, tiny, make_patch(tiny), tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_shared_and_independent_decoding_answer_alike_at_every_limit(
    mode: str, decoder: Decoder, reference: Reference
) -> None:
    rules = decoder.rules(mode)
    shared, independent = decoder.decode(mode, False), decoder.decode(mode, True)
    flips: dict[tuple[Tokens, int], float] = {}
    forced = 0
    for prompt in shared.draws:
        for limit in LIMITS:
            answers = shared.answer(prompt, limit), independent.answer(prompt, limit)
            forced += answers[0].forced
            phases = shared.spoken(rules, prompt, limit), independent.spoken(rules, prompt, limit)
            for (read, one), (_, other) in zip(*phases, strict=False):
                if (shortfall := reference.flip(read, one, other)) is not None:
                    flips[(prompt, limit)] = shortfall
                    break  # what follows a flip may differ as it likes
            else:
                assert answers[0] == answers[1]
    cases = PROBLEMS * len(LIMITS)
    print(f"{mode}: {len(flips)} of {cases} answers differ, shortfalls {sorted(flips.values())}")
    assert max(flips.values(), default=0.0) <= NEAR_TIE
    assert len(flips) <= cases // 20, "near-ties are rare; so many differences have another cause"
    assert forced > PROBLEMS, "most answers must follow a cut, or this test shows nothing"
    assert independent.trace_tokens > 1.5 * shared.trace_tokens


@pytest.mark.parametrize("mode", MODES)
def test_traces_are_what_transformers_generates(mode: str, decoder: Decoder, reference: Reference) -> None:
    rules = decoder.rules(mode)
    shared = decoder.decode(mode, False)
    flips = []
    for prompt in list(shared.draws)[:REFERENCED]:
        (read, trace), *_ = shared.spoken(rules, prompt, max(LIMITS))
        # A tag of several tokens is no stop for `generate`: what comes behind it is dropped here.
        generated = reference.greedy(read, max(LIMITS), trace_stops(rules)[0])
        if (end := natural_end(rules, generated)) is not None:
            generated = generated[: end[1]]
        if (shortfall := reference.flip(read, trace, generated)) is not None:
            flips.append(shortfall)
    print(f"{mode}: {len(flips)} of {REFERENCED} traces differ from transformers', shortfalls {flips}")
    assert max(flips, default=0.0) <= NEAR_TIE
    assert len(flips) < REFERENCED, "no trace agrees"


def test_wrong_token_is_no_near_tie(decoder: Decoder, reference: Reference) -> None:
    shared = decoder.decode("native-strict", False)
    prompt = next(iter(shared.draws))
    (read, trace), *_ = shared.spoken(decoder.rules("native-strict"), prompt, max(LIMITS))
    for at, token in enumerate(trace):
        assert (reference.flip(read, trace, (*trace[:at], token ^ 1, *trace[at + 1 :])) or 0.0) > 4 * NEAR_TIE
