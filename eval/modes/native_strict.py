"""`native-strict`: the model's own tags, and a cap on the answer of its own. After Qwen3's quickstart and
thinking-budget pages."""

from typing import Final

from eval.formats import ThinkingFormat, TokenCodec, detect_format
from eval.modes.two_phase import TwoPhase


class NativeStrict(TwoPhase):
    """Without a cap on the answer, a model would go on thinking there."""

    name = "native-strict"
    needs_answer_tokens = True

    def choose_format(self, codec: TokenCodec, given: ThinkingFormat | None) -> ThinkingFormat:
        return given or detect_format(codec)


MODE: Final = NativeStrict()
