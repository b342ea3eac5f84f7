"""Budget forcing as a state machine, sans I/O: ``start(rules, job)`` and ``advance(rules, state, name,
completion)``.

Each returns a ``Step``: the new state, the asks to send now, and the finished draw when the last completion
is in. No engine, no clock, no randomness; a draw is a function of its job and the completions.

A trace is decoded once, to the largest limit owed. When it is complete, the answer of every limit is asked
for at once: a cut of the same ids, then the format's early-stop text; all of them ride on the prefix that
the engine still has cached. Limits at or above the trace's natural length share one natural answer, so an
answer is keyed by its **cut**, the number of trace tokens it stands on.

What a limit counts: every token of the thinking stream, the model's own tags (and s1's "Wait") included,
text that we put after a cut excluded. It is the ``max_tokens`` of the first phase in Qwen3's recipe and in
s1's harness. A trace is natural at limit L if its end tag (or end of sequence) is complete within L tokens.
Ids are fed back as ids; text is never re-tokenized.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eval.draws import (
    Answer,
    Ask,
    Completion,
    Draw,
    DrawJob,
    PriorTrace,
    answer_for,
    independent_jobs,
    owed_limits,
)
from eval.formats import tokens_reaching
from eval.rules import (
    Rules,
    derived_seed,
    first_of,
    longest_trace,
    make_rules,
    natural_end,
    phase_seed,
    room_to_think,
    trace_stops,
)

__all__ = [
    "Answer",
    "Ask",
    "Completion",
    "Draw",
    "DrawJob",
    "PriorTrace",
    "Rules",
    "State",
    "Step",
    "advance",
    "answer_for",
    "derived_seed",
    "independent_jobs",
    "make_rules",
    "owed_limits",
    "start",
]


@dataclass(frozen=True)
class State:
    """A draw in progress. ``pending`` maps the names of answers asked for to (cut, forced)."""

    job: DrawJob
    trace: tuple[int, ...]
    waits: int
    rounds: int
    ended: bool
    pending: Mapping[str, tuple[int, bool]]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Step:
    """What follows an event: the state, asks to send now, and the draw once it is finished."""

    state: State
    asks: tuple[Ask, ...]
    draw: Draw | None


def start(rules: Rules, job: DrawJob) -> Step:
    """Begin a draw: ask for the trace, or, where the stored one suffices, for the answers.

    Raises ``ValueError`` when the prompt leaves no room in the context.
    """
    if not job.limits:
        raise ValueError(f"draw of problem {job.problem_id!r}, seed {job.seed}: no limit is owed. Plan it again.")
    prior = job.prior or PriorTrace((), ended=False, limit=0)
    state = State(job, prior.token_ids, prior.waits, 0, prior.ended, {}, ())
    reach = longest_trace(rules, job)
    if state.ended or len(state.trace) >= reach:
        return _ask_answers(rules, replace(state, ended=state.ended or reach < max(job.limits)))
    return Step(state, (_trace_ask(rules, state, reach),), None)


def advance(rules: Rules, state: State, name: str, completion: Completion) -> Step:
    """Take in the completion of the ask called ``name``. Answers may come back in any order."""
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
        # A limit inside the text still stores all of it that the context holds: a larger limit, added later, must go
        # on behind it.
        trace = trace[: room_to_think(rules, state.job)]
        return _ask_answers(rules, replace(waiting, trace=trace, ended=reach < max(state.job.limits)))
    # An engine that decodes several tokens per step may overshoot; what lies behind the end was never asked
    # for.
    trace = trace[: end[1]] if end is not None else trace[:reach]
    ended = end is not None or reach < max(state.job.limits)
    return _ask_answers(rules, replace(state, trace=trace, rounds=rounds, ended=ended))


def _trace_ask(rules: Rules, state: State, reach: int) -> Ask:
    stop_ids, stop_texts = trace_stops(rules)
    return Ask(
        name=_trace_name(state),
        prompt_ids=_thinking_prompt(rules, state) + state.trace,
        max_tokens=reach - len(state.trace),
        stop_token_ids=stop_ids,
        stop_texts=stop_texts,
        seed=_trace_seed(rules, state),
        min_tokens=1 if rules.budget.wait and _after_wait(rules, state) else 0,
    )


def _after_wait(rules: Rules, state: State) -> bool:
    """Whether stops are forbidden for one token: at the beginning and behind a "Wait" (upstream's
    min_tokens of 1).

    A stored trace that goes on is judged by its last ids; a model that wrote "Wait" itself, exactly there,
    is taken for us.
    """
    assert rules.tags is not None
    behind = state.waits > 0 and state.trace[-len(rules.tags.wait) :] == rules.tags.wait
    return not state.trace or behind


def _trace_name(state: State) -> str:
    return "trace" if state.rounds == 0 else f"trace+{state.rounds}"


def _trace_seed(rules: Rules, state: State) -> int:
    """A continued trace must not replay the random stream that its beginning used, so its seed is derived
    from the place where it goes on. After a "Wait" the place is the trace's own, and upstream repeats the
    seed."""
    prior = state.job.prior
    if prior is not None and prior.token_ids:
        return derived_seed(state.job.seed, state.job.prompt_ids, f"trace@{len(prior.token_ids)}")
    return phase_seed(rules, state.job, "trace")


def _thinking_prompt(rules: Rules, state: State) -> tuple[int, ...]:
    opening = rules.tags.opening if rules.tags is not None and rules.budget.mode != "none" else ()
    return state.job.prompt_ids + opening


# --- the answers --------------------------------------------------------------------------------------------


def _ask_answers(rules: Rules, state: State) -> Step:
    """The trace is complete: one ask per distinct cut."""
    cuts = sorted({min(limit, len(state.trace)) for limit in state.job.limits})
    end = natural_end(rules, state.trace) if state.ended else None
    asks: list[Ask] = []
    pending: dict[str, tuple[int, bool]] = {}
    answers: list[Answer] = []
    for cut in cuts:
        natural = end is not None and cut == len(state.trace)
        if rules.budget.mode == "none":
            reason = "stop" if natural else "context" if state.ended and cut == len(state.trace) else "length"
            answers.append(_cut_response(rules, state.trace[:cut], reason))
        elif natural and _is_finished(rules, state.trace):
            answers.append(_response_without_answer(rules, state.trace))
        else:
            ask = _answer_ask(rules, state, cut, end if natural else None)
            asks.append(ask)
            pending[ask.name] = (cut, not natural)
    state = replace(state, pending=pending, answers=tuple(answers))
    return Step(state, tuple(asks), None if asks else _draw(state))


def _answer_ask(rules: Rules, state: State, cut: int, end: tuple[int, int] | None) -> Ask:
    assert rules.style is not None
    assert rules.tags is not None
    thinking = state.trace[:cut]
    if end is None:
        if rules.style.newline_rule and not rules.codec.decode(thinking[-1:]).endswith("\n"):
            thinking += rules.tags.newline
        thinking += rules.tags.early_stop
    elif rules.style.bridge is not None:
        thinking = state.trace[: end[0]] + rules.tags.bridge
    prompt = _thinking_prompt(rules, state) + thinking
    room = rules.context - len(prompt)
    return Ask(
        name=f"answer@{cut}",
        prompt_ids=prompt,
        max_tokens=min(room, rules.budget.answer_tokens or room),
        stop_token_ids=tuple(sorted(rules.eos_ids)),
        stop_texts=(),
        seed=phase_seed(rules, state.job, "answer"),
    )


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
        reopened_thinking=_reopens(rules, text),
    )
    pending = {other: place for other, place in state.pending.items() if other != name}
    state = replace(state, pending=pending, answers=(*state.answers, answer))
    return Step(state, (), None if pending else _draw(state))


def _is_finished(rules: Rules, trace: tuple[int, ...]) -> bool:
    """Whether the response ended inside the thinking for good. Qwen3's recipe takes it as done; s1's asks
    on.
    """
    assert rules.style is not None
    return trace[-1] in rules.eos_ids and not rules.style.answer_after_eos


def _response_without_answer(rules: Rules, trace: tuple[int, ...]) -> Answer:
    # Qwen3's quickstart: without </think> in the output, all of it is the content.
    text = rules.codec.decode(trace[:-1])
    return Answer(len(trace), False, len(trace), (), text, False, "stop", False)


def _cut_response(rules: Rules, response: tuple[int, ...], finish_reason: str) -> Answer:
    """Mode "none": the limit is the ``max_tokens`` of the whole response. Its answer is what follows the
    last end tag, or everything when there is none (lm-evaluation-harness, ``think_end_token``)."""
    whole = rules.codec.decode(response[:-1] if finish_reason == "stop" else response)
    at = whole.rfind(rules.style.end) if rules.style is not None else -1
    begins = at + len(rules.style.end) if rules.style is not None and at >= 0 else 0
    text = whole[begins:]
    thinking = tokens_reaching(response, begins, rules.codec)
    return Answer(
        cut=len(response),
        forced=False,
        thinking_tokens=thinking,
        token_ids=response[thinking:],
        text=text,
        cap_hit=finish_reason != "stop",
        finish_reason=finish_reason,
        reopened_thinking=begins > 0 and _reopens(rules, text),
    )


def _reopens(rules: Rules, text: str) -> bool:
    return rules.style is not None and any(mark in text for mark in rules.style.reopens)


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
