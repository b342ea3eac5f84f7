r"""Quantities: a number and the words around it, as in `\text{Answer: } 12 \text{ inches (rounded)}`."""

import re
from typing import NamedTuple


class Quantity(NamedTuple):
    """A value without its unit. `unit` is a name in `UNITS`' values, or empty where there is none that is known."""

    value: str
    unit: str


_SPELLINGS = {
    "%": "% percent pct percentage",
    "degree": "degree degrees deg",
    "dollar": "dollar dollars usd buck bucks",
    "cent": "cent cents",
    "euro": "euro euros eur",
    "pound sterling": "pound gbp",
    "yen": "yen jpy 円",
    "yuan": "yuan rmb cny 元",
    "inch": "inch inches in",
    "foot": "foot feet ft",
    "yard": "yard yards yd",
    "mile": "mile miles mi",
    "millimetre": "mm millimeter millimeters millimetre millimetres",
    "centimetre": "cm centimeter centimeters centimetre centimetres",
    "metre": "m meter meters metre metres",
    "kilometre": "km kilometer kilometers kilometre kilometres",
    "gram": "g gram grams",
    "kilogram": "kg kilogram kilograms",
    "ounce": "oz ounce ounces",
    "second": "s sec second seconds",
    "minute": "min minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "litre": "l liter liters litre litres",
    "millilitre": "ml milliliter milliliters",
    "radian": "rad radian radians",
    "am": "am a.m.",
    "pm": "pm p.m.",
    "mph": "mph",
    "metre per second": "m/s",
    "kilometre per hour": "km/h kph",
}
UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
"""Spelling -> unit. Two answers with different known units are different; any other word after a number is ignored."""

LONGEST_UNIT = 150
"""Characters in which words after a number are looked for."""

_CURRENCY = {r"\dollar": "dollar", r"\euro": "euro", r"\pound": "pound sterling", r"\yen": "yen"}
_EXPLAINS = re.compile(r"\s*(?:\(|,?\s*(?:since|because|where|as|for|when|if|so|i\.e)\b)", re.IGNORECASE)
_LABEL = re.compile(r"\s*(?:\\text\{\s*(?:[^{}]*(?::|\bis|\bare)|\(?[A-E]\)?[.:)]?)\s*\}\s*|\(?[A-E]\)\s+)(?=\S)")
_WORD = r"(?:\\text\{[^{}]*\}|[^\W\d_]+(?:[./][^\W\d_]+)*\.?)"
# Letters never follow letters without a space, or "aaa...a1" would be cut in words in exponentially many ways.
_NEXT_WORD = rf"\s+{_WORD}|\\text\{{[^{{}}]*\}}|(?<=\}})[^\W\d_]+"
_ORDINAL = re.compile(r"(?<=\d)\s*(?:\^\s*)?\{?\s*(?:\\text\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}$")
_TRAILING = re.compile(
    rf"(?<![\\A-Za-z])(?P<words>{_WORD}(?:{_NEXT_WORD})*)(?P<power>\s*\^\s*\{{?\s*[-\d]+\s*\}}?)?\s*$"
)
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_REMARK = re.compile(r"(?<=[\d}]) \((?:\\text\{)?\s*[A-Za-z]{3,}[^()\\]{0,80}\)$")
_UNIT_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def quantity(text: str) -> Quantity:
    r"""`text`, in `notation.plain`, without a label before and a unit or explanation after it."""
    text = _ORDINAL.sub("", _without_label(text))
    text = _REMARK.sub("", _without_explanation(text))
    for sign, unit in _CURRENCY.items():
        if sign in text:
            rest = text.replace(sign, " ", 1).strip()
            if any(character.isdigit() for character in rest):
                return Quantity(quantity(rest).value, unit)
    for sign, unit in ((r"\%", "%"), (r"^\circ", "degree")):
        if _FUNCTION.search(text) is not None:
            break  # of an angle
        if text.endswith(sign):
            return Quantity(text.removesuffix(sign).strip(), unit)
        if sign == r"^\circ" and re.search(r"\^\\circ\s*\\?(?:text\{)?\s*[CF]\s*\}?$", text):
            return Quantity(text[: text.rindex(r"^\circ")].strip(), "degree")
    match = _TRAILING.search(text, max(0, len(text) - LONGEST_UNIT))
    if match is None or match.start() == 0:
        return Quantity(text, "")
    before, said = text[: match.start()].rstrip(), match["words"]
    if not _can_carry_a_unit(before, said, attached=before == text[: match.start()]):
        return Quantity(text, "")
    return Quantity(before.removesuffix("\\").strip(), _unit(said, match["power"]))


def _without_label(text: str) -> str:
    match = _LABEL.match(text)
    return text[match.end() :] if match is not None and match.end() < len(text) else text


def _without_explanation(text: str) -> str:
    """`text` up to a `\\text{...}` that begins an explanation, or that says where, not what."""
    for match in _UNIT_TEXT.finditer(text):
        before = text[: match.start()].strip()
        if before and _EXPLAINS.match(match[1]):
            return before
        rest = text[match.end() :]
        several = len(match[1].split()) > 1
        if before and several and re.fullmatch(r"\s*[A-Za-z](?:\s*\\text\{[^{}]*\})?\s*", rest):
            return f"{before} {match[0]}"  # "27 miles from City A"
    return text


def _can_carry_a_unit(before: str, said: str, attached: bool) -> bool:
    """Whether what precedes words is a number, so that they are its unit and no factor."""
    if not before or not (before[-1].isdigit() or before[-1] in ")}]!" or before.endswith(r"\pi")):
        return False
    if "\\text" in said:
        return True
    if not said[0].isascii():
        return True
    known = said.lower().rstrip(".") in UNITS or said.lower() in UNITS
    # "5 m" and "5m" are lengths only where a number alone precedes; "5xy" is a product.
    numeral = re.fullmatch(r"(?:[-+]?[\d.,\s{}/]+|\\pi)+|.*\\frac\{\d+\}\{\d+\}", before) is not None
    return numeral and (known or (len(said) > 2 and not attached))


def _unit(said: str, power: str | None) -> str:
    spelled = _UNIT_TEXT.sub(r" \1 ", said).strip().lower()
    squared = re.search(r"\d", power or "")
    tokens = spelled.split()
    dimension = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}.get(tokens[0].rstrip(".")) if tokens else None
    if dimension is not None:
        tokens = tokens[1:]
    if tokens and tokens[-1] in ("squared", "cubed"):
        dimension = {"squared": "2", "cubed": "3"}[tokens.pop()]
    for name in (" ".join(tokens), tokens[0] if tokens else ""):
        unit = UNITS.get(name) or UNITS.get(name.rstrip("."))
        if unit is not None:
            raised = dimension or (squared[0] if squared else "")
            return f"{unit}^{raised}" if raised else unit
    return ""
