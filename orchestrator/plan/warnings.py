"""What a grid allows and its author would probably not want. Said by `plan` and when a sweep begins. Pure."""

from collections.abc import Iterator

from eval.formats import TokenCodec, knows_s1
from eval.modes.s1_legacy import MODE as S1_LEGACY
from eval.spec import BudgetSpec


def model_warnings(model: str, tokenizer: TokenCodec, budget: BudgetSpec, context: int) -> Iterator[str]:
    """What to say of `model` under `budget`. `context`: its length in tokens."""
    if budget.mode != S1_LEGACY.name:
        return
    if not knows_s1(tokenizer):
        yield (
            f"{S1_LEGACY.name} writes s1's delimiters whatever the model, and {model} has not Qwen2.5's vocabulary, "
            "which s1's models have: it will take `<|im_start|>think` for text, and go on with nonsense. Use "
            "native-strict, with format: instruct for a model without thinking tags"
        )
    if budget.answer_tokens is None:
        yield (
            "answers have no cap of their own (budget.answer_tokens), as in the paper: one that does not end fills the "
            f"context of {model}, {context:,} tokens, at every limit again. Set it, to 1024 say, unless you want that"
        )
