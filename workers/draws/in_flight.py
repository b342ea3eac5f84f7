"""The draws that an engine is making: begun as the cache has room, each followed from one ask to the next.

Each draw's next ask is sent as soon as its last completion arrives, so forced answers run while their trace's blocks
are still in the prefix cache. Room is asked for when a draw begins, and never for what follows.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from eval.budget import State, Step, advance, start
from eval.draws import Ask, Completion, Draw
from eval.modes import make_rules
from eval.prompts import ChatTokenizer
from eval.rules import Rules
from workers.draws.admission import Footprint, Forecast, Kind, Past
from workers.engines.engine import Engine, EngineFault, Finished
from workers.failure import Failure, FailureKind
from workers.messages import Context, Item, Rejected, Shard

UNCAPPED_ANSWER = 1024
"""Tokens that an answer without a cap is expected to take at most, until longer ones have been seen."""


@dataclass(frozen=True)
class FinishedDraw:
    """A draw with all its answers."""

    shard: Shard
    item: Item
    draw: Draw
    answer_tokens: int
    """How many tokens were generated for its answers: none where they are read off the trace."""


@dataclass
class _ActiveDraw:
    """A draw in flight."""

    shard: Shard
    item: Item
    state: State
    prompt: int
    """Tokens of its first prompt."""
    asks: dict[str, Ask] = field(default_factory=dict)


class DrawsInFlight:
    """The draws of one variant that `engine` is making; `ceiling` is the most at a time, None for as many as it decodes
    at once."""

    def __init__(self, engine: Engine, codec: ChatTokenizer, ceiling: int | None) -> None:
        self._engine, self._codec = engine, codec
        self._capacity = engine.capacity()
        self._ceiling = ceiling or self._capacity.sequences
        self._rules: dict[str, Rules] = {}
        self._active: dict[int, _ActiveDraw] = {}
        self._begun = self._longest = 0
        self._past: dict[Kind, Past] = {}
        self._full = False
        """Whether the next draw did not fit, and nothing has ended since."""

    def __len__(self) -> int:
        return len(self._active)

    def prepare(self, context: Context) -> None:
        """Prepare for draws of `context`."""
        if context.context_id not in self._rules:
            self._rules[context.context_id] = make_rules(
                context.budget, self._codec, self._codec.eos_ids, context.context_length, context.format
            )

    def begin(self, waiting: deque[tuple[Shard, Item]]) -> Iterator[FinishedDraw | Rejected]:
        """Begin draws of `waiting`, in order, as long as the engine has room; one always has."""
        forecast: Forecast | None = None
        while waiting and len(self._active) < self._ceiling and not self._full:
            shard, item = waiting[0]
            try:
                step = start(self._rules[shard.context.context_id], item.job)
            except ValueError as error:
                waiting.popleft()
                yield Rejected(shard.task_id, (item.number,), Failure(FailureKind.BAD_INPUT, str(error)))
                continue
            prompt = max((len(ask.prompt_ids) for ask in step.asks), default=0)
            draw = _ActiveDraw(shard, item, step.state, prompt, {ask.name: ask for ask in step.asks})
            footprint = self._footprint(draw, {})
            if forecast is None or footprint.most > self._longest:
                forecast = self._forecast(footprint)
            forecast = forecast.plus(footprint)
            if self._active and not forecast.fits:
                self._full = True
                return
            waiting.popleft()
            self._begun += 1
            self._active[self._begun] = draw
            try:
                yield from self._follow(self._begun, step)
            except ValueError as error:
                yield self._reject(self._begun, Failure(FailureKind.BAD_INPUT, str(error)))

    def take(self, finished: Finished) -> Iterator[FinishedDraw | Rejected]:
        """Take in a completion and go on with its draw."""
        number, _, name = finished.name.partition("/")
        draw = self._active.get(int(number))
        if draw is None:
            return
        self._full = False
        del draw.asks[name]
        if not isinstance(finished.completion, Completion):
            yield self._reject(int(number), finished.completion)
            return
        try:
            rules = self._rules[draw.shard.context.context_id]
            yield from self._follow(int(number), advance(rules, draw.state, name, finished.completion))
        except ValueError as error:
            yield self._reject(int(number), Failure(FailureKind.ENGINE_ERROR, str(error)))

    def reject_asks(self, fault: EngineFault) -> Iterator[Rejected]:
        """Give up the draws that brought the engine down, so that they alone are given up."""
        for number in sorted({int(name.partition("/")[0]) for name in fault.asks}):
            if (draw := self._active.pop(number, None)) is not None:
                yield Rejected(draw.shard.task_id, (draw.item.number,), fault.failure)

    def abandon(self) -> None:
        """Cancel every draw."""
        for number in list(self._active):
            self._drop(number)

    # --- one draw -----------------------------------------------------------------------------------------------------

    def _follow(self, number: int, step: Step) -> Iterator[FinishedDraw]:
        draw = self._active[number]
        draw.state = step.state
        if step.draw is not None:
            del self._active[number]
            answers = [len(answer.token_ids) for answer in step.draw.answers]
            if not self._rules[draw.shard.context.context_id].mode.answer_phase:
                answers = []  # they are read off the trace
            self._learn(draw, step.draw, answers)
            yield FinishedDraw(draw.shard, draw.item, step.draw, sum(answers))
            return
        draw.asks |= {ask.name: ask for ask in step.asks}
        for ask in step.asks:
            # Answers overtake every trace, the longest prompt first: it can reuse most of the prefix cache, and its
            # blocks may be evicted while it waits. Of traces, the one that was begun last gives way: it has least to
            # lose.
            rank = -len(ask.prompt_ids) if step.state.pending else number
            self._engine.submit(f"{number}/{ask.name}", ask, draw.shard.context.sampling, rank)

    def _reject(self, number: int, failure: Failure) -> Rejected:
        draw = self._drop(number)
        return Rejected(draw.shard.task_id, (draw.item.number,), failure)

    def _drop(self, number: int) -> _ActiveDraw:
        draw = self._active.pop(number)
        self._engine.cancel([f"{number}/{name}" for name in sorted(draw.asks)])
        return draw

    # --- what the cache will hold -------------------------------------------------------------------------------------

    def _forecast(self, candidate: Footprint) -> Forecast:
        generated: dict[str, dict[str, int]] = {}
        for ask, tokens in self._engine.progress().items():
            number, _, name = ask.partition("/")
            generated.setdefault(number, {})[name] = tokens
        footprints = [self._footprint(draw, generated.get(str(number), {})) for number, draw in self._active.items()]
        self._longest = max(footprint.most for footprint in (*footprints, candidate))
        return Forecast.of(self._capacity, footprints, self._past, self._longest)

    def _learn(self, draw: _ActiveDraw, made: Draw, answers: list[int]) -> None:
        """Take in how long a draw has lived. `answers`: how many tokens were generated for each."""
        past, longest = self._past.setdefault(_kind(draw), Past()), max(answers, default=0)
        (past.ended if made.ended else past.cut).append(max(1, len(made.trace_ids) + longest))
        past.answer_steps += longest
        past.answer_tokens += sum(answers) - longest + self._capacity.block_tokens * len(answers)

    def _footprint(self, draw: _ActiveDraw, generated: dict[str, int]) -> Footprint:
        """What a draw holds of the cache and will. `generated`: for each of its asks, how many tokens there are."""
        written = max((len(ask.prompt_ids) for ask in draw.asks.values()), default=0) - draw.prompt
        longest = max((generated.get(name, 0) for name in draw.asks), default=0)
        left = max((ask.max_tokens - generated.get(name, 0) for name, ask in draw.asks.items()), default=0)
        age, held = written + longest, draw.prompt + written + sum(generated.get(name, 0) for name in draw.asks)
        if draw.state.pending:
            apart = self._capacity.block_tokens * len(draw.asks)
            return Footprint(_kind(draw), held + apart, age, age + max(1, left), len(draw.asks))
        most, steps, tokens = self._answers(draw)
        return Footprint(_kind(draw), held, age, age + left + most, 1, steps, tokens)

    def _answers(self, draw: _ActiveDraw) -> tuple[int, float, float]:
        """How many steps a draw's answers take at most, how many they are expected to take, and their tokens."""
        rules, count = self._rules[draw.shard.context.context_id], len(draw.item.job.limits)
        if not rules.mode.answer_phase:
            return 0, 0.0, 0.0
        most = rules.budget.answer_tokens or UNCAPPED_ANSWER
        if (past := self._past.get(_kind(draw))) is None:
            return most, most, (count - 1) * most + count * self._capacity.block_tokens
        over = len(past.ended) + len(past.cut)
        return most, past.answer_steps / over, past.answer_tokens / over


def _kind(draw: _ActiveDraw) -> Kind:
    return (draw.shard.context.context_id, draw.item.benchmark, draw.item.continues)
