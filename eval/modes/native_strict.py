"""`native-strict`: the model's own tags, and a separate cap on the answer. After Qwen3's quickstart and
thinking-budget pages."""

from typing import Final

from eval.formats import ThinkingFormat, TokenCodec, detect_format
from eval.modes.two_phase import TwoPhase


class NativeStrict(TwoPhase):
    """The answer needs a cap: without one, a model would go on thinking there."""

    name = "native-strict"
    needs_answer_tokens = True

    def choose_format(self, codec: TokenCodec, given: ThinkingFormat | None) -> ThinkingFormat:
        return given or detect_format(codec)


MODE: Final = NativeStrict()
