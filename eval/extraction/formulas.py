r"""Formulas in a text: what stands between `$`, `$$`, `\(` `\)`, `\[` `\]`, or is a displayed environment. One pass."""

import re
from typing import NamedTuple


class Formula(NamedTuple):
    """Where a formula stands, delimiters included, and what it says."""

    start: int
    end: int
    content: str


_DISPLAY = r"\{(?:align|equation|gather|multline|eqnarray)\*?\}"
_DELIMITER = re.compile(rf"\\\$|\$\$|\$|\\[()\[\]]|\\(?:begin|end){_DISPLAY}|\\\\|\n")
FORMULA_OPENS = ("$", r"\(", r"\[", r"\begin{")
_CLOSES = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_JOIN = re.compile(r"\s*(?:,|;|and|or|, and|, or|,? ?\\text\{ ?(?:and|or) ?\})?\s*")


def formulas_in(text: str) -> list[Formula]:
    """All formulas of `text` that are closed, in order. A single `$` does not reach beyond its line."""
    found: list[Formula] = []
    opened: re.Match[str] | None = None
    for match in _DELIMITER.finditer(text):
        token = match[0]
        if token in (r"\$", r"\\"):
            continue
        if token == "\n":
            if opened is not None and opened[0] == "$":
                opened = None
        elif opened is None:
            opened = match if token in _CLOSES or token.startswith(r"\begin") else None
        elif token == (_CLOSES.get(opened[0]) or opened[0].replace("begin", "end")):
            display = token.startswith(r"\end")
            content = text[opened.start() : match.end()] if display else text[opened.end() : match.start()].strip()
            if content:
                found.append(Formula(opened.start(), match.end(), content))
            opened = None
        elif token in (r"\(", r"\["):
            opened = match  # the one before was never closed
    return found


def on_one_line(text: str) -> str:
    """`text` with every formula on a single line."""
    parts, at = [], 0
    for formula in formulas_in(text):
        parts += [text[at : formula.start], text[formula.start : formula.end].replace("\n", " ")]
        at = formula.end
    return "".join([*parts, text[at:]])


def first_formulas(text: str) -> str | None:
    """The formulas that `text` begins with, joined by commas if "and", "or" or a comma joins them."""
    return _joined(formulas_in(text), text, from_end=False) if text.startswith(FORMULA_OPENS) else None


def last_formulas(text: str) -> str | None:
    """The last formulas of `text`, joined by commas if "and", "or" or a comma joins them."""
    return _joined(formulas_in(text), text, from_end=True)


def _joined(found: list[Formula], text: str, from_end: bool) -> str | None:
    if not found:
        return None
    ordered = found[::-1] if from_end else found
    group = [ordered[0]]
    for formula in ordered[1:]:
        one, other = (formula, group[-1]) if from_end else (group[-1], formula)
        between = text[one.end : other.start]
        if len(between) > 12 or not _JOIN.fullmatch(between):
            break
        group.append(formula)
    if from_end:
        group.reverse()
    return ", ".join(formula.content.rstrip(".,; ") for formula in group) or None
