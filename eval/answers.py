r"""How answers are found in text: the last box, the usual phrasings, whole numbers, choice letters. Nothing is
evaluated.

`extract_math` follows s1's harness (the last `\boxed`, else what follows "Answer:", else the bare text), but does not
accept prose as an answer: where the harness would ask a judge model, it finds none.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    r"""The content of a `\boxed{...}`, and whether its closing brace was there."""

    content: str
    closed: bool


class Found(NamedTuple):
    """An answer that a text gives, and the rule that found it."""

    expression: str
    rule: str


_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{|[^\s\\{])")
_FONT = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|boldsymbol|bf|rm)\b\s*"
_FONT_GROUP = re.compile(_FONT + r"\{([^{}]*)\}")
_CUES = (
    re.compile(r"(?i)\bfinal\s+answer\b\W{0,6}?(?:is\b\s*:?|:|=)[\s*_]*"),
    re.compile(r"(?i)\banswer\b\W{0,6}?(?:is\b\s*:?|:|=)[\s*_]*"),
)
_MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$([^$\n]+?)(?<!\\)\$", re.DOTALL)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_FUNCTIONS = frozenset({"sqrt", "sin", "cos", "tan", "log", "ln", "exp", "inf", "infty", "and", "pi"})
_LONGEST_BARE = 200
_INTEGER = re.compile(r"(?P<sign>[+-]?)(?P<digits>[0-9]{1,3}(?:(?:,|\{,\}|,\\!|\\,|\\!)[0-9]{3})+|[0-9]+)(?:\.0*)?")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|°")


def last_box(text: str) -> Box | None:
    r"""The last `\boxed{...}` or `\fbox{...}`, with balanced braces; `\boxed 7` takes one character, as in TeX.

    A box that the end of the text cuts off is returned only if no closed one precedes it.
    """
    unclosed: Box | None = None
    for start in reversed(list(_BOX.finditer(text))):
        box = _box_at(text, start.end())
        if box.closed:
            return box
        unclosed = unclosed or box
    return unclosed


def _box_at(text: str, begin: int) -> Box:
    if text[begin] != "{":
        return Box(text[begin], closed=True)
    depth, index = 0, begin
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 2  # \{ and \} are literal braces, not groups
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return Box(text[begin + 1 : index], closed=True)
        index += 1
    return Box(text[begin + 1 :], closed=False)


def extract_math(text: str) -> str | None:
    """The expression that `text` gives as its answer, or None if it gives none. A cut-off box is none."""
    box = last_box(text)
    if box is not None:
        return (box.content.strip() or None) if box.closed else None
    for cue in _CUES:
        matches = list(cue.finditer(text))
        if matches:
            said = text[matches[-1].end() :].split("\n", 1)[0]
            return _expression_in(re.split(r"\.\s", said, maxsplit=1)[0])
    lines = [line for line in text.splitlines() if line.strip()]
    return _expression_in(lines[-1]) if lines else None


def _expression_in(line: str) -> str | None:
    """The expression of a line: its last formula, or the whole line if it is not prose."""
    formulas = [next(part for part in match.groups() if part is not None) for match in _MATH.finditer(line)]
    if formulas:
        return formulas[-1].strip().rstrip(".,;") or None
    bare = line.strip().strip("*_`#").strip().rstrip(".;,").strip("*_`").strip()
    words = [word for word in _PROSE.findall(_FONT_GROUP.sub("", bare)) if word.lower() not in _FUNCTIONS]
    number = re.match(r"[-+]?\$?[0-9][0-9,./]*(?=\s)", bare)
    if number is not None and words and "=" not in bare:
        return number[0].rstrip(".,/")  # "42 because ...", "42 apples"
    if not bare or len(bare) > _LONGEST_BARE or len(words) > 1:
        return None
    return bare


def without_fonts(text: str) -> str:
    r"""`text` without font commands: `\text{6:00 PM}` becomes `6:00 PM`."""
    return _FONT_GROUP.sub(r"\1", text)


def as_integer(text: str) -> str | None:
    r"""The decimal digits of the whole number that `text` spells, such as `025`, `27.0`, `1{,}234` or `\text{7}`; else
    None.

    The result is text, because converting a very long number to an int can itself hang.
    """
    plain = without_fonts(text).replace("−", "-").replace("\\ ", " ").replace("\\;", " ")
    plain = _DEGREES.sub("", plain).strip().strip("$").removeprefix("\\(").removesuffix("\\)")
    match = _INTEGER.fullmatch(plain.strip().strip("{}").replace(" ", ""))
    if match is None:
        return None
    digits = re.sub(r"[^0-9]", "", match["digits"]).lstrip("0") or "0"
    return f"-{digits}" if match["sign"] == "-" and digits != "0" else digits


# --- choices ------------------------------------------------------------------------------------------------


def choice_letter(index: int) -> str:
    """The letter of the choice at `index` of those shown: 0 is A."""
    return chr(ord("A") + index)


def extract_choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter (A, B, ...) that `text` picks among `choices`, or None if it picks none or several.

    The first of these decides: the last box, "the answer is ...", "option X is correct", a line that begins with the
    letter, the text of exactly one choice. Lower-case letters count only where they cannot be the article "a".
    """
    letters = "".join(choice_letter(index) for index in range(len(choices)))
    box = last_box(text)
    if box is not None:
        return _letter_of(box.content, letters, choices) if box.closed else None
    for pattern in _choice_patterns(letters):
        matches = list(pattern.finditer(text))
        if matches:
            last = matches[-1]
            if _names_another(text[last.end() :], letters):
                return None
            return last["letter"].upper()
    lines = [line for line in text.splitlines() if line.strip()]
    return _letter_of(lines[-1].strip("*_ ."), letters, choices) if lines else None


def _choice_patterns(letters: str) -> tuple[re.Pattern[str], ...]:
    upper, lower = f"[{letters}]", f"[{letters.lower()}]"
    open_, close = r"[\s*_$({\[\\`'\"]*" + rf"(?:{_FONT}\{{)?[({{\[*_$]*", r"(?![\w'’-])"
    bracketed = rf"[(\[]\s*(?P<letter>{upper}|{lower})\s*[)\]]"
    noun = r"(?i:answer|option|choice|response)"
    link = r"\s*(?:[*_]*\s*(?i:is|was|would\s+be|must\s+be|should\s+be|has\s+to\s+be|be|[:=→-])[*_\s]*)+"
    words = "clearly|therefore|thus|indeed|simply|option|choice|answer|letter|likely|the|most|correct"
    filler = rf"(?:(?i:{words})\b[\s:]*)*"
    patterns = (
        # "The answer is (C)", "Answer: **C**", "the correct option would be $\text{C}$"
        rf"\b{noun}s?\b{link}{filler}(?:{bracketed})",
        rf"\b{noun}s?\b{link}{filler}{open_}(?P<letter>{upper}){close}(?!\s+(?!is\b|because\b|since\b|as\b)[a-z])",
        rf"\b{noun}\s*:\s*(?P<letter>{lower})\s*$",
        # "Option C is correct", "(C) is the right answer", "I choose C", "go with C"
        rf"(?:\b{noun}\s+)?(?:\(\s*)?\b(?P<letter>{upper})\b\)?[*_]*\s+(?i:is|must\s+be)\s+(?i:the\s+)?"
        r"(?i:most\s+)?(?i:correct|right|best|true|answer)\b",
        rf"(?i:choose|pick|select|go(?:ing)?\s+with|chose|favou?rs?)\s+{filler}{open_}(?P<letter>{upper}){close}",
        rf"(?i:therefore|thus|hence|so)\b,?\s*(?:it(?:'s|\s+is)\s+)?{filler}{open_}(?P<letter>{upper}){close}\W*$",
        # A line that is the letter, or opens with it: "C", "(C)", "C) 5 m/s", "**C.** 5 m/s"
        rf"^[\s*_#>]*[(\[]?(?P<letter>{upper})(?:[)\].:][^\n]*|[\s*_)\].]*)$",
        rf"\b{noun}\s+[(\[]?(?P<letter>{upper}){close}[)\]]?\W*$",
        rf"\b{noun}\b[^.\n]{{0,60}}?\b(?:is|but)\s+{filler}{open_}(?P<letter>{upper}){close}\W*$",
    )
    return tuple(re.compile(pattern, re.MULTILINE) for pattern in patterns)


def _names_another(rest: str, letters: str) -> bool:
    """Whether `rest`, what follows a letter, names another one, as in "A or B", "A, C" or "A and (D)"."""
    return (
        re.match(rf"[)\]*_}}$\s]*(?:,|/|&|\band\b|\bor\b)[\s,]*(?:or|and)?[\s*_$(\[]*[{letters}]\b(?![\w'])", rest)
        is not None
    )


def _letter_of(content: str, letters: str, choices: Sequence[str]) -> str | None:
    """The letter that a box's content picks: a letter in any markup, `C) text`, or the text of exactly one choice."""
    plain = without_fonts(content).strip().strip("$*_. ").strip()
    alone = re.fullmatch(rf"(?i)(?:(?:answer|option|choice)\s*:?\s*)?[(\[{{]?\s*([{letters}])\s*[)\]}}]?[.:]?", plain)
    if alone is not None:
        return alone[1].upper()
    led = re.match(rf"\(?([{letters}])\s*[).:]\s*\S", plain)
    if led is not None and not _names_another(plain[led.start(1) + 1 :], letters):
        return led[1]
    same = [index for index, choice in enumerate(choices) if _squeezed(choice) == _squeezed(content)]
    return letters[same[0]] if len(same) == 1 else None


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$.]|\\[,;! ]", "", without_fonts(text)).lower()
