"""`s1-legacy`: what s1's lm-evaluation-harness fork does (`vllm_causallms.py`), whatever the model."""

from typing import Final

from eval.draws import DrawJob
from eval.formats import FORMATS, ThinkingFormat, TokenCodec
from eval.modes.two_phase import TwoPhase


class S1Legacy(TwoPhase):
    """The delimiters are always s1's, and natural ends of thinking may be overruled with "Wait"."""

    name = "s1-legacy"
    overrules_end = True

    def choose_format(self, codec: TokenCodec, given: ThinkingFormat | None) -> ThinkingFormat:
        return FORMATS["s1"]

    def seed(self, job: DrawJob, phase: str) -> int:
        """The harness passes the grid's seed to both phases of every problem."""
        return job.seed


MODE: Final = S1Legacy()
