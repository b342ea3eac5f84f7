"""A calculation that is left to the reader is no number: `7 * 4` says the task again, where 28 is asked for."""

import re

from eval.equality.notation import plain

_NUMERAL = r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)"
_OPERATOR = r"(?:[*+·×x÷-]|\\cdot|\\times|\\div)"
_NUMBER = re.compile(rf"\s*{_NUMERAL}\s*")
_CALCULATION = re.compile(rf"[\s(]*{_NUMERAL}(?:[\s()]*{_OPERATOR}[\s()]*{_NUMERAL})+[\s)]*")


def repeats_the_task(gold: str, answer: str) -> bool:
    """Whether `answer` is a sum, a difference or a product of numerals, and `gold` a number.

    Such a text equals the gold as soon as it repeats the question, which pruned models do. Fractions, powers and roots
    are values in their own right.
    """
    return _NUMBER.fullmatch(plain(gold)) is not None and _CALCULATION.fullmatch(plain(answer)) is not None
