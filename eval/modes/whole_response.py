"""`none`: no budget forcing, as a plain harness. The limit is the `max_tokens` of the whole response."""

from typing import Any, Final

from eval.draws import Answer, DrawJob
from eval.formats import Tags, ThinkingFormat, TokenCodec, implied_format, tokens_reaching
from eval.rules import BudgetMode, CutTrace, Rules, derived_seed, reopens_thinking
from eval.spec import BudgetSpec


class WholeResponse(BudgetMode):
    """The answer is what follows the last end tag, or the whole response if there is no tag (lm-evaluation-harness,
    `think_end_token`). A format only tells where the answer begins, so a model may do without one."""

    name = "none"
    answer_phase = False

    def choose_format(self, codec: TokenCodec, given: ThinkingFormat | None) -> ThinkingFormat | None:
        return given or implied_format(codec)

    def opening(self, rules: Rules) -> tuple[int, ...]:
        return ()

    def reserved_tokens(self, rules: Rules) -> int:
        return 0

    def seed(self, job: DrawJob, phase: str) -> int:
        return derived_seed(job.seed, job.prompt_ids, phase)

    def answer(self, rules: Rules, job: DrawJob, trace: CutTrace) -> Answer:
        response, ended = trace.token_ids, trace.end is not None
        whole = rules.codec.decode(response[:-1] if ended else response)
        at = whole.rfind(rules.style.end) if rules.style is not None and rules.style.end else -1
        begins = at + len(rules.style.end) if rules.style is not None and at >= 0 else 0
        text = whole[begins:]
        thinking = tokens_reaching(response, begins, rules.codec)
        return Answer(
            cut=len(response),
            forced=False,
            thinking_tokens=thinking,
            token_ids=response[thinking:],
            text=text,
            cap_hit=not ended,
            finish_reason="stop" if ended else "context" if trace.context_full else "length",
            reopened_thinking=begins > 0 and reopens_thinking(rules, text),
        )

    def trace_identity(self, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
        return {}

    def answer_identity(self, budget: BudgetSpec, style: ThinkingFormat | None, tags: Tags | None) -> dict[str, Any]:
        return {"end": style.end} if style is not None and style.end else {}


MODE: Final = WholeResponse()
