"""What modes with an answer phase share: the thinking is one request, and a second one generates the answer."""

from typing import Any

from eval.draws import Answer, Ask, DrawJob
from eval.formats import Tags, ThinkingFormat, forced_cue
from eval.rules import UNCAPPED_ANSWER_ROOM, BudgetMode, CutTrace, Rules, derived_seed, thinking_prompt
from eval.spec import BudgetSpec


class TwoPhase(BudgetMode):
    """A trace ends at the end tag, or is cut and closed with the format's early-stop text; then the answer is asked
    for. The format is never None in these modes."""

    answer_phase = True

    def opening(self, rules: Rules) -> tuple[int, ...]:
        _, tags = _format(rules)
        return tags.opening

    def early_stop(self, tags: Tags) -> tuple[int, ...]:
        """The token ids written after a trace that was cut."""
        return tags.early_stop

    def cue(self, style: ThinkingFormat | None) -> str:
        return forced_cue(style) if style is not None else ""

    def reserved_tokens(self, rules: Rules) -> int:
        _, tags = _format(rules)
        forced = max(len(tags.newline) + len(self.early_stop(tags)), len(tags.bridge))
        return len(tags.opening) + forced + (rules.budget.answer_tokens or UNCAPPED_ANSWER_ROOM)

    def seed(self, job: DrawJob, phase: str) -> int:
        return derived_seed(job.seed, job.prompt_ids, phase)

    def answer(self, rules: Rules, job: DrawJob, trace: CutTrace) -> Ask | Answer:
        style, tags = _format(rules)
        thinking = trace.token_ids
        if trace.end is None:
            if style.newline_rule and not rules.codec.decode(thinking[-1:]).endswith("\n"):
                thinking += tags.newline
            thinking += self.early_stop(tags)
        elif thinking[-1] in rules.eos_ids and not style.answer_after_eos:
            # As in Qwen3's quickstart: if the output has no </think>, all of it is the content.
            cut = len(thinking)
            return Answer(cut, False, cut, (), rules.codec.decode(thinking[:-1]), False, "stop", False)
        elif style.bridge is not None:
            thinking = thinking[: trace.end[0]] + tags.bridge
        prompt = thinking_prompt(rules, job.prompt_ids) + thinking
        room = rules.context - len(prompt)
        return Ask(
            name=f"answer@{len(trace.token_ids)}",
            prompt_ids=prompt,
            max_tokens=min(room, rules.budget.answer_tokens or room),
            stop_token_ids=tuple(sorted(rules.eos_ids)),
            stop_texts=(),
            seed=self.seed(job, "answer"),
        )

    def trace_identity(self, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
        return {} if style is None or tags is None else {"opening": tags.opening, "end": style.end}

    def answer_identity(self, budget: BudgetSpec, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
        if style is None or tags is None:
            return {}
        return {
            "answer_tokens": budget.answer_tokens,
            "early_stop": self.early_stop(tags),
            "bridge": tags.bridge,
            "newline": tags.newline,
            "after_eos": style.answer_after_eos,
        }


def _format(rules: Rules) -> tuple[ThinkingFormat, Tags]:
    assert rules.style is not None
    assert rules.tags is not None
    return rules.style, rules.tags
