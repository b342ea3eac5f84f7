"""Budget forcing as a state machine without I/O: `start(rules, job)` and `advance(rules, state, name, completion)`.

Each returns a `Step`: the new state, the asks to send now, and the draw once its last completion is in. There is no
engine, clock or randomness here: a draw is a function of its job and the completions.

A trace is decoded once, to the largest limit owed. Then the answers of all limits are asked for at once, each after a
cut of the same ids followed by the early-stop text, so that all of them reuse the prefix that the engine has cached.
Limits at or above the trace's natural length share one answer, so an answer is keyed by its **cut**, the number of
trace tokens before it.

A limit counts every token of the thinking stream, including the model's own tags and s1's "Wait", but not the text
written after a cut. That is `max_tokens` of the first phase in Qwen3's recipe and in s1's harness. A trace is natural
at limit L if its end tag, or the end of sequence, is complete within L tokens. Ids are fed back as ids; text is never
re-tokenized.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eval.draws import Answer, Ask, Completion, Draw, DrawJob, PriorTrace
from eval.rules import (
    CutTrace,
    Rules,
    derived_seed,
    first_of,
    longest_trace,
    natural_end,
    reopens_thinking,
    room_to_think,
    thinking_prompt,
    trace_stops,
)


@dataclass(frozen=True)
class State:
    """A draw in progress."""

    job: DrawJob
    trace: tuple[int, ...]
    """All token ids of the trace so far, stored ones included."""
    waits: int
    """How many ends of thinking were overruled."""
    rounds: int
    """How many completions of the trace were taken in."""
    ended: bool
    """Whether the trace cannot grow: it ended by itself, or the context is full."""
    pending: Mapping[str, tuple[int, bool]]
    """The name of each answer asked for -> (cut, forced)."""
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Step:
    """The result of a transition: the new state, the asks to send now, and the draw if it is finished."""

    state: State
    asks: tuple[Ask, ...]
    draw: Draw | None


def start(rules: Rules, job: DrawJob) -> Step:
    """Begin a draw: ask for its trace, or for its answers if the stored trace is long enough.

    Raises `ValueError` if the prompt leaves no room in the context.
    """
    if not job.limits:
        raise ValueError(
            f"draw of problem {job.problem_id!r}, seed {job.seed}: no limit is owed, so there is nothing to decode."
        )
    prior = job.prior or PriorTrace((), ended=False, limit=0)
    state = State(job, prior.token_ids, prior.waits, 0, prior.ended, {}, ())
    reach = longest_trace(rules, job)
    if state.ended or len(state.trace) >= reach:
        return _ask_answers(rules, replace(state, ended=state.ended or reach < max(job.limits)))
    return Step(state, (_trace_ask(rules, state, reach),), None)


def advance(rules: Rules, state: State, name: str, completion: Completion) -> Step:
    """Take in the completion of the ask called `name`. Answers may arrive in any order.

    Raises `ValueError` if no such ask is open, or if the engine stopped where it was not told to.
    """
    if name in state.pending:
        return _take_answer(rules, state, name, completion)
    if name != _trace_name(state) or state.pending or state.answers:
        raise ValueError(
            f"draw of problem {state.job.problem_id!r}: no ask {name!r} is open ({sorted(state.pending)})."
        )
    return _take_trace(rules, state, completion)


# --- the trace ----------------------------------------------------------------------------------------------


def _take_trace(rules: Rules, state: State, completion: Completion) -> Step:
    reach = longest_trace(rules, state.job)
    trace = state.trace + completion.token_ids
    end = natural_end(rules, trace)
    if end is None and completion.finish == "stop" and len(trace) < reach:
        raise ValueError(
            f"draw of problem {state.job.problem_id!r}, seed {state.job.seed}: the engine stopped after "
            f"{len(trace)} of {reach} tokens at none of the stops asked for. Check its stop settings and "
            "eos ids."
        )
    if end is None and len(trace) < reach:
        raise ValueError(
            f"draw of problem {state.job.problem_id!r}, seed {state.job.seed}: the engine ended at length "
            f"with {len(trace)} tokens where {reach} were asked for. Its context is shorter than the "
            f"rules' {rules.context}."
        )
    rounds = state.rounds + 1
    if end is not None and state.waits < rules.budget.wait:
        assert rules.tags is not None  # waiting needs a format; make_rules saw to it
        trace = trace[: end[0]] + rules.tags.wait
        waiting = replace(state, trace=trace, waits=state.waits + 1, rounds=rounds)
        if len(trace) < reach:
            return Step(waiting, (_trace_ask(rules, waiting, reach),), None)
        # A limit inside "Wait" still stores the whole text, as far as the context holds it: a larger limit that is
        # added later continues after it.
        trace = trace[: room_to_think(rules, state.job)]
        return _ask_answers(rules, replace(waiting, trace=trace, ended=reach < max(state.job.limits)))
    # An engine that decodes several tokens per step may overshoot; what follows the end was not asked for.
    trace = trace[: end[1]] if end is not None else trace[:reach]
    ended = end is not None or reach < max(state.job.limits)
    return _ask_answers(rules, replace(state, trace=trace, rounds=rounds, ended=ended))


def _trace_ask(rules: Rules, state: State, reach: int) -> Ask:
    stop_ids, stop_texts = trace_stops(rules)
    return Ask(
        name=_trace_name(state),
        prompt_ids=thinking_prompt(rules, state.job.prompt_ids) + state.trace,
        max_tokens=reach - len(state.trace),
        stop_token_ids=stop_ids,
        stop_texts=stop_texts,
        seed=_trace_seed(rules, state),
        min_tokens=1 if rules.budget.wait and _after_wait(rules, state) else 0,
    )


def _after_wait(rules: Rules, state: State) -> bool:
    """Whether the next token must not be a stop: at the beginning and after a "Wait" (upstream's min_tokens of 1).

    A stored trace is judged by its last ids; a model-written "Wait" there cannot be told from ours.
    """
    assert rules.tags is not None
    waited = state.waits > 0 and state.trace[-len(rules.tags.wait) :] == rules.tags.wait
    return not state.trace or waited


def _trace_name(state: State) -> str:
    return "trace" if state.rounds == 0 else f"trace+{state.rounds}"


def _trace_seed(rules: Rules, state: State) -> int:
    """The seed of the next request for the trace.

    A stored trace must not continue with the random numbers of its beginning, so its seed is derived from the position
    where it continues. After a "Wait" of the same run the seed is repeated, as upstream does.
    """
    prior = state.job.prior
    if prior is not None and prior.token_ids:
        return derived_seed(state.job.seed, state.job.prompt_ids, f"trace@{len(prior.token_ids)}")
    return rules.mode.seed(state.job, "trace")


# --- the answers --------------------------------------------------------------------------------------------


def _ask_answers(rules: Rules, state: State) -> Step:
    """The trace is complete: get the answer of every distinct cut, by a request where the mode needs one."""
    cuts = sorted({min(limit, len(state.trace)) for limit in state.job.limits})
    end = natural_end(rules, state.trace) if state.ended else None
    asks: list[Ask] = []
    pending: dict[str, tuple[int, bool]] = {}
    answers: list[Answer] = []
    for cut in cuts:
        complete = state.ended and cut == len(state.trace)
        natural = complete and end is not None
        trace = CutTrace(state.trace[:cut], end if natural else None, context_full=complete and not natural)
        answer = rules.mode.answer(rules, state.job, trace)
        if isinstance(answer, Answer):
            answers.append(answer)
        else:
            asks.append(answer)
            pending[answer.name] = (cut, not natural)
    state = replace(state, pending=pending, answers=tuple(answers))
    return Step(state, tuple(asks), None if asks else _draw(state))


def _take_answer(rules: Rules, state: State, name: str, completion: Completion) -> Step:
    cut, forced = state.pending[name]
    stop = first_of(completion.token_ids, rules.eos_ids)
    ids = completion.token_ids if stop is None else completion.token_ids[: stop + 1]
    text = rules.codec.decode(ids if stop is None else ids[:-1])
    capped = rules.budget.answer_tokens is not None and len(ids) >= rules.budget.answer_tokens
    answer = Answer(
        cut=cut,
        forced=forced,
        thinking_tokens=cut,
        token_ids=ids,
        text=text,
        cap_hit=stop is None,
        finish_reason="stop" if stop is not None else "length" if capped else "context",
        reopened_thinking=reopens_thinking(rules, text),
    )
    pending = {other: value for other, value in state.pending.items() if other != name}
    state = replace(state, pending=pending, answers=(*state.answers, answer))
    return Step(state, (), None if pending else _draw(state))


def _draw(state: State) -> Draw:
    prior = state.job.prior
    begin = len(prior.token_ids) if prior is not None else 0
    return Draw(
        problem_id=state.job.problem_id,
        seed=state.job.seed,
        start=begin,
        trace_ids=state.trace[begin:],
        ended=state.ended,
        limit=max(*state.job.limits, prior.limit) if prior is not None else max(state.job.limits),
        derived_seed=begin > 0 and state.rounds > 0,
        answers=tuple(sorted(state.answers, key=lambda answer: answer.cut)),
        waits=state.waits,
    )
