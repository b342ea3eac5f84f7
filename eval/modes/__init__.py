"""The budget modes: one file each, and the table of them. `eval.rules.BudgetMode` says what a mode must define."""

from eval.formats import ThinkingFormat, TokenCodec, tags
from eval.modes import native_strict, s1_legacy, whole_response
from eval.rules import BudgetMode, Rules
from eval.spec import BudgetSpec, is_whole, nearest, refuse

MODES: dict[str, BudgetMode] = {
    mode.name: mode
    for mode in (
        native_strict.MODE,
        s1_legacy.MODE,
        whole_response.MODE,
    )
}


def check_budget(spec: BudgetSpec) -> None:
    """Raise `ValueError` if `spec` is no budget that can be imposed."""
    if spec.mode not in MODES:
        refuse("budget.mode", spec.mode, f"the modes are {', '.join(MODES)}",
               f"See docs/evaluation.md.{nearest(str(spec.mode), MODES)}")  # fmt: skip
    mode = MODES[spec.mode]
    if spec.answer_tokens is not None and (not is_whole(spec.answer_tokens) or spec.answer_tokens < 1):
        refuse("budget.answer_tokens", spec.answer_tokens, "an answer needs at least one token",
               "Leave it out for no cap but the context.")  # fmt: skip
    if mode.needs_answer_tokens and spec.answer_tokens is None:
        refuse("budget.answer_tokens", None, f"{mode.name} caps the answer, or thinking moves into it",
               "Set it, for example to 1024.")  # fmt: skip
    if not mode.answer_phase and spec.answer_tokens is not None:
        refuse("budget.answer_tokens", spec.answer_tokens, f"mode {mode.name} has no answer phase of its own",
               "Leave it out: the token limit caps the whole response.")  # fmt: skip
    if not is_whole(spec.wait) or spec.wait < 0:
        refuse("budget.wait", spec.wait, "it counts continuations", "Use 0 for none.")
    if spec.wait and not mode.overrules_end:
        able = " or ".join(other.name for other in MODES.values() if other.overrules_end)
        rule = f"only {able} overrules the end of thinking, and the mode is {mode.name}"
        refuse("budget.wait", spec.wait, rule, f"Set budget.mode to {able}, or drop budget.wait.")
    if spec.wait and not spec.wait_text:
        refuse("budget.wait_text", spec.wait_text, "a continuation needs a text", "s1 uses 'Wait'.")


def make_rules(
    budget: BudgetSpec,
    codec: TokenCodec,
    eos_ids: frozenset[int],
    context: int,
    style: ThinkingFormat | None = None,
) -> Rules:
    """The rules of one variant.

    `style` is the format that the user gave; None leaves the choice to the mode. `context` is the model's maximum
    length in tokens, prompt included. Raises `ValueError` naming the setting at fault.
    """
    check_budget(budget)
    mode = MODES[budget.mode]
    chosen = mode.choose_format(codec, style)
    chosen_tags = tags(codec, chosen, budget.wait_text if budget.wait else "") if chosen is not None else None
    if budget.wait and chosen is not None and chosen_tags is not None and len(chosen_tags.end) > 1:
        # A limit inside the mark would cut after tokens that overruling takes back: no shared trace could serve it.
        raise ValueError(
            f"budget.wait = {budget.wait}: this tokenizer spells the end mark {chosen.end!r} in {len(chosen_tags.end)} "
            "tokens, and only an end of one token can be overruled. Use a model with Qwen2.5's vocabulary, as s1's "
            "are, or drop budget.wait."
        )
    return Rules(mode, budget, chosen, chosen_tags, codec, eos_ids, context)
