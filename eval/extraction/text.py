"""A model's text as extraction reads it: bounded, and without runs of white space.

Pruned models fill their limit with loops, so a text may be a hundred thousand repetitions of anything. What is bounded
and collapsed here lets every later pattern take time in proportion to the text.
"""

import re

from eval.equality.notation import LATIN

HEAD = 2_000
"""Characters kept of a long text's beginning, where a forced answer stands."""
TAIL = 12_000
"""Characters kept of its end, where a free answer stands."""

_WIDE = str.maketrans(LATIN | {"：": ":", "，": ",", "。": ". ", "（": "(", "）": ")", "\u3000": " "})
_SPECIAL = re.compile(r"<\|[A-Za-z_]{1,40}\|>|</?s>|<<[^<>\n]{0,100}>>")
_DAMAGED_BOX = re.compile(r"(?<![\\A-Za-z])(?:\\\\)?boxed(?=\{)|\x08oxed(?=\{)")
_FIRST_ITEM = re.compile(r"1[.)] (?=\*{0,2}[A-Za-z]{2})")
_ITEM = re.compile(r"(\d{1,3})[.)](?: |$)")
_BULLET = re.compile(r"• ?|[-*] (?=[*$\\])")
_RULE = re.compile(r"[-=*_~]{3,}|```\w*")
_RUNS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\n\s*\n")


def bounded(text: str) -> str:
    """The beginning and the end of `text`; what lies between is dropped, as a blank line.

    White space is collapsed, full-width characters made narrow, and marks such as `<|im_end|>` and the calculator's
    `<<3+4=7>>` are dropped. A box whose backslash was lost, doubled or read as an escape gets it back.
    """
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n\n{text[-TAIL:]}"
    text = _DAMAGED_BOX.sub(r"\\boxed", _SPECIAL.sub(" ", text.translate(_WIDE)))
    return _LINES.sub("\n\n", _RUNS.sub(" ", text))


def after_thinking(text: str) -> str:
    """What follows the last `</think>`; empty if there is none."""
    return text.rpartition("</think>")[2].strip() if "</think>" in text else ""


def lines_of(text: str) -> list[str]:
    """The lines that hold anything, stripped; rules (`---`) and code fences hold nothing."""
    return [line for part in text.splitlines() if (line := part.strip()) and _RULE.fullmatch(line) is None]


def completing_line(text: str) -> str:
    """The line that completes what was written before `text`: the first that has more than a colon; else empty."""
    return next((line for line in lines_of(text) if line.strip(" :*_")), "")


def is_marked(line: str) -> bool:
    """Whether `line` is the first of a list, as `1. Add the numbers` is."""
    return _FIRST_ITEM.match(line) is not None


def ends_a_list(lines: list[str]) -> bool:
    """Whether the last of `lines` is a list marker by itself, `2.` after `1. Add the numbers`."""
    last = _ITEM.fullmatch(lines[-1])
    return last is not None and any(
        int(item[1]) == int(last[1]) - 1 for line in lines[:-1] if (item := _ITEM.match(line)) is not None
    )


def without_bullet(line: str) -> str:
    """`line` without the bullet of a list before it. `- 5` may be a number."""
    return _BULLET.sub("", line, count=1) if _BULLET.match(line) else line
