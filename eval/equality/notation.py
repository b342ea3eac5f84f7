r"""One notation for what is written in many: Unicode, fonts, sizes and plain-text functions become plain LaTeX.

    "½"  ->  \frac{1}{2}      "\mathbf{025}"  ->  025      "\left( 3,\, π/2 \right)"  ->  ( 3, \pi/2 )

What is written in `\text{...}` stays marked as such, because words are read differently from symbols.
"""

import re
import unicodedata

LATIN = {
    code: unicodedata.normalize("NFKC", chr(code)) for code in (*range(0x1D400, 0x1D6A6), *range(0x1D7CE, 0x1D800))
}
LATIN |= {code: chr(code - 0xFEE0) for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
"""Bold, script and full-width letters and digits -> plain ones."""
_CHARACTERS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "＋": "+", "＝": "=", "×": r"\times ",
    "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "÷": r"\div ", "∕": "/", "⁄": "/", "π": r"\pi ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
    "λ": r"\lambda ", "φ": r"\varphi ", "ϕ": r"\phi ", "ω": r"\omega ", "°": r"^\circ ", "º": r"^\circ ",
    "′": "'", "’": "'", "％": "%", "。": ".", "．": ".", "，": ",", "、": ",", "；": ";", "：": ":",
    "（": "(", "）": ")",
    "［": "[", "］": "]", "｛": r"\{", "｝": r"\}", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u3000": " ",
    "\u200b": "", "\ufeff": "", "⟨": "(", "⟩": ")", "〈": "(", "〉": ")", "√": r"\sqrt ", "∛": r"\sqrt[3] ",
    "＜": "<", "＞": ">", "€": r"\euro ", "£": r"\pound ", "¥": r"\yen ", "￥": r"\yen ", "…": r"\ldots ",
    "ℝ": r"\mathbb{R}", "或": r"\text{ or }", "和": r"\text{ and }",
}  # fmt: skip
_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
    "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_TABLE = LATIN | str.maketrans(_CHARACTERS | {sign: rf"\frac{{{a}}}{{{b}}}" for sign, (a, b) in _FRACTIONS.items()})
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_GROUP = r"\{([^{}]*)\}"
_SAME: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:display|text|script)style(?![A-Za-z])", ""),
        (r"\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|limits|nolimits)(?![A-Za-z])", ""),
        (r"\\(?:color|textcolor|colorbox)\s*" + _GROUP + r"\s*", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:leq|leqslant|leqq)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|geqq)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|\\not\s*=|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
        (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
        (r"\\mathbb\s*(?:\{\s*R\s*\}|R)|\\(?:R|reals)(?![A-Za-z])", r"(-\\infty,\\infty)"),
        (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"\\log_\{?e\}?(?![A-Za-z])", r"\\ln "),
        (r"(?<=\d) x (?=\d)", r"\\times "),
        (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"(?<=\d)(?:\s*\\text\{\s*to\s*\}\s*| to )(?=\d)", ":"),
        (r"\\(?:lbrack)(?![A-Za-z])", "["),
        (r"\\(?:rbrack)(?![A-Za-z])", "]"),
        (r"\\(?:colon)(?![A-Za-z])", ":"),
        (r"\\(?:degree)(?![A-Za-z])", r"^\\circ "),
        (r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])", r"^\\circ "),
        (r"\\(?:dots|cdots|dotsc)(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\\vert(?![A-Za-z])|\\[lr]vert(?![A-Za-z])", "|"),
        (r",\s*\\!\s*", ","),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\(?:[,;:> ]|q?quad(?![A-Za-z])|thinspace(?![A-Za-z]))|~", " "),
        (r"\\\$", r"\\dollar "),
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", ""),
        (r"\\?%", r"\\% "),
        (r"\\(?:infin|infinity)(?![A-Za-z])|(?<![\\A-Za-z])(?:infty|infinity)(?![A-Za-z])", r"\\infty "),
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
    )
)
_FONT = re.compile(
    r"\\(?:mathrm|mathbf|mathit|mathsf|mathnormal|mathbb|boldsymbol|bm|operatorname\*?|underline|underbrace|boxed|fbox|framebox|ensuremath|emph)\s*"
    + _GROUP
)
_SWITCH = re.compile(r"\\(?:bf|rm|it|sf|bfseries|itshape|em|boldmath)(?![A-Za-z])")
_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|textnormal|texttt|mbox|hbox)\s*" + _GROUP)
_TEXT_ALONE = re.compile(r"\s*\\text\{([^{}]*)\}[\s.]*")
_ALIGNED = re.compile(r"\\(?:begin|end)\s*\{(?:aligned|align\*?|gathered|gather\*?|split|equation\*?)\}")
_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9]+|[A-Za-z]|\([^()]*\))")
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s*(\([^()]*\)|\{[^{}]*\}|[0-9]+)")
_PLAIN_EXP = re.compile(r"(?<![\\A-Za-z])exp\s*\(([^()]*)\)")
_PLAIN_NAMES = re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|cot|log|ln)(?![A-Za-z])")
_UNBRACED_FRACTION = re.compile(r"\\frac\s*([0-9a-zA-Z]|\{[^{}]*\})\s*([0-9a-zA-Z]|(?=\{))")
_APPROXIMATE = re.compile(r"\\(?:approx|simeq|doteq)(?![A-Za-z])|≈")
_SPACES = re.compile(r"\s+")
_BREAK_AT_END = re.compile(r"\\+\s*\Z")
_VARIABLE = re.compile(r"\s*[A-Za-z](?:_\{?\w\}?)?\s*")
_HEDGE = re.compile(r"(?i)\s*(?:\\text\{\s*)?(?:approximately|about|roughly|exactly)(?:\s*\}|(?= ))")
_BRACED = re.compile(r"(\{+)([^{}]*)(\}+)")
_OUTWARD = re.compile(
    r"(?:(?<=^)|(?<=\\cup)|(?<=\\cup ))([\[\](])([^\[\](){}]{1,80}[,;][^\[\](){}]{1,80})([\[\])])(?=\s*(?:\\cup|$))"
)
_NAMED_SETS = (
    (re.compile(r"(?i)(?:the set of )?(?:all )?(?:reals|real numbers)"), r"(-\infty,\infty)"),
    (re.compile(r"(?i)(?:the )?empty set"), r"\emptyset"),
)
DEEPEST = 12
"""How many nested fonts are taken off."""


def plain(expression: str) -> str:
    r"""`expression` in one notation, outer punctuation removed. Time in proportion to its length."""
    text = _BREAK_AT_END.sub("", _raised(expression.strip().strip("*")).translate(_TABLE))
    if _ALIGNED.search(text):
        text = _ALIGNED.sub("", text).replace("&", " ").replace("\\\\", " ")
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    text = _SWITCH.sub(" ", text)
    for _ in range(DEEPEST):
        text, changed = _FONT.subn(r"\1", text)
        if not changed:
            break
    text = _HEDGE.sub("", text, count=1) if _HEDGE.match(text) else text
    text = _WORDS.sub(lambda match: rf"\text{{{match[1]}}}" if match[1].strip() else " ", text)
    if (whole := _TEXT_ALONE.fullmatch(text)) is not None and any(map(str.isdigit, text)):
        text = whole[1]
    text = _PLAIN_ROOT.sub(lambda match: rf"\sqrt{{{_inner(match[1])}}}", text)
    text = _ROOT.sub(lambda match: rf"\sqrt{match[1] or ''}{{{_inner(match[2])}}}", text)
    text = _PLAIN_EXP.sub(r"e^{\1}", text)
    text = _PLAIN_NAMES.sub(r"\\\1 ", text)
    text = _UNBRACED_FRACTION.sub(_braced_fraction, text)
    text = trimmed(_SPACES.sub(" ", _exact_part(text)))
    text = _OUTWARD.sub(_inward, text)
    said = _WORDS.sub(r"\1", text).strip(" .")
    return next((name for pattern, name in _NAMED_SETS if pattern.fullmatch(said)), text)


def trimmed(text: str) -> str:
    """`text` without white space, emphasis and final punctuation around it, nor braces that hold all of it."""
    text = text.strip().strip("`#*").strip().rstrip(".,;").removeprefix("=").strip()
    braced = _BRACED.fullmatch(text)
    return braced[2].strip() if braced is not None and len(braced[1]) == len(braced[3]) else text


def _raised(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda match: f"^{{{match[0].translate(_RAISED)}}}", text)
    return re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda match: f"_{{{match[0].translate(_LOWERED)}}}", text)


def _inward(match: re.Match[str]) -> str:
    """`]0, 1[` as `(0, 1)`."""
    opening, closing = match[1].replace("]", "("), match[3].replace("[", ")")
    return f"{opening}{match[2]}{closing}"


def _inner(group: str) -> str:
    return group[1:-1] if group[:1] in "({" else group


def _braced_fraction(match: re.Match[str]) -> str:
    over = match[1] if match[1].startswith("{") else f"{{{match[1]}}}"
    return rf"\frac{over}" + (f"{{{match[2]}}}" if match[2] else "")


def _exact_part(text: str) -> str:
    r"""The exact side of `exact \approx rounded`; all of `\approx 5`; `x \approx 5` is `x = 5`."""
    sides = [side for side in _APPROXIMATE.split(text) if side.strip()]
    if len(sides) == 2 and _VARIABLE.fullmatch(sides[0]):
        return "=".join(sides)
    return sides[0] if sides else ""


def words(text: str) -> str:
    r"""The words of an expression that is text: `\text{An ellipse.}` becomes `ellipse`, `6:00 p.m.` `6:00pm`."""
    bare = _WORDS.sub(r" \1 ", text).lower()
    bare = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", bare)
    bare = re.sub(r"^\s*(?:an?|the)\s+", "", bare)
    return re.sub(r"[\s.\"']", "", bare)
