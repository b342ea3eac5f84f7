r"""Numbers read exactly: `1{,}234`, `2\frac12`, `0.\overline{3}`, `1/2^{99}`, `3.5 \cdot 10^{-4}` become fractions.

A reader of arithmetic on numerals, not an evaluator of expressions: what is not rational, or has a letter in it, is not
read. Two numbers that are read are compared exactly, however small or long they are.
"""

import re
from fractions import Fraction

from eval.equality.arithmetic import EnormousError, value_of

_THOUSANDS = re.compile(
    # "8 107/114" is a mixed number.
    r"(?<![\d.,])\d{1,3}(?:(?:(?:,|\{,\})\d{3})+(?!\d)(?!(?:,|\{,\})\d)|(?: \d{3})+(?! ?[\d/]))",
    re.ASCII,
)
_SIGNED = re.compile(r"[-+]?\s*(?:\d+\.?\d*|\.\d+|\d*\.\d*\\(?:overline|bar)\s*\{?\d+\}?)")


def exact(text: str) -> Fraction | None:
    """The value of `text`, in `notation.plain`, if it is arithmetic on numerals with a rational value; else None.

    Raises EnormousError for a value too large to compute.
    """
    joined = _THOUSANDS.sub(lambda match: re.sub(r"[^\d]", "", match[0]), text.strip())
    if re.search("[0-9]", joined) is None:
        return None
    return value_of(joined)


def exact_or_none(text: str) -> Fraction | None:
    """`exact`, with None for what is too large to compute."""
    try:
        return exact(text)
    except EnormousError:
        return None


def is_numeral(text: str) -> bool:
    """Whether `text` is one number as it is written down, with nothing left to add, subtract or divide out: an integer,
    decimal, fraction or mixed number, signed or not."""
    joined = _THOUSANDS.sub(lambda match: re.sub(r"[^\d]", "", match[0]), text.strip())
    fraction = r"\\frac\s*\{\s*-?\d+\s*\}\s*\{\s*-?\d+\s*\}|\d+\s*/\s*\d+"
    numeral = rf"(?:{_SIGNED.pattern}|[-+]?\s*(?:\d+\s*)?(?:{fraction}))"
    return re.fullmatch(rf"\(?{numeral}\)?", joined) is not None


def leaves_a_sum(text: str) -> bool:
    r"""Whether `text` is arithmetic that still adds, subtracts or divides with `\div`: a repeated question, such as
    `47 - 42`, and no number."""
    bare = re.sub(r"\^\s*\{[^{}]*\}", "", text)
    bare = re.sub(r"[eE][-+](?=\d)", "e", bare)
    return re.search(r"\\div|(?:[\d})!]|\\%)\s*[-+]\s*[\d(.\\{]", bare) is not None


def integer_digits(text: str) -> str | None:
    """The decimal digits of a whole number of any length, such as `025` or `1,234`; None for anything else.

    The result is text, because converting a very long number to an int can itself hang.
    """
    match = re.fullmatch(r"([-+]?)\s*(\d{1,3}(?:(?:,|\{,\}| )\d{3})+|\d+)(?:\.0*)?", text.strip(), re.ASCII)
    if match is None:
        return None
    digits = re.sub(r"[^0-9]", "", match[2]).lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits
