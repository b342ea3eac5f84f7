"""A model's text as extraction reads it: bounded, and without runs of white space.

Pruned models fill their limit with loops, so a text may be a hundred thousand repetitions of anything. What is bounded
and collapsed here lets every later pattern take time in proportion to the text.
"""

import re

HEAD = 2_000
"""Characters kept of a long text's beginning, where a forced answer stands."""
TAIL = 12_000
"""Characters kept of its end, where a free answer stands."""

_WIDE = str.maketrans({"：": ":", "，": ",", "。": ". ", "（": "(", "）": ")", "\u3000": " "})
_SPECIAL = re.compile(r"<\|[A-Za-z_]{1,40}\|>|</s>")
_RUNS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\n\s*\n")


def bounded(text: str) -> str:
    """The beginning and the end of `text`; what lies between is dropped, as a blank line.

    White space is collapsed, full-width punctuation made narrow, and marks such as `<|im_end|>` are dropped.
    """
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n\n{text[-TAIL:]}"
    return _LINES.sub("\n\n", _RUNS.sub(" ", _SPECIAL.sub(" ", text.translate(_WIDE))))


def lines_of(text: str) -> list[str]:
    """The lines that hold anything, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]
