r"""Two single values: numbers with units, words, numerals with a base, and what only algebra can compare."""

import re
from fractions import Fraction

from eval.equality.notation import words
from eval.equality.numerals import exact, is_numeral, leaves_a_sum
from eval.equality.symbolic import same_function
from eval.equality.units import quantity

_BASED = re.compile(r"\(?([0-9A-Za-z]+)\)?_\{?(?:\\text\{)?\(?([0-9]+|[a-z]+)\)?\}{0,2}")
_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_BASES = {name: str(number) for number, name in enumerate(_NUMBERS.split())}
_WORDY = re.compile(r"\\text\{|(?<![\\A-Za-z])[A-Za-z]{3,}")


def spelled(text: str) -> str:
    """`text` without white space, but for that between digits: `2 1/4` is not `21/4`."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def is_wordy(text: str) -> bool:
    """Whether `text` has words in it."""
    return _WORDY.search(text) is not None


def same_values(gold: str, answer: str) -> bool:
    """Whether two values in `notation.plain` are equal."""
    one, other = quantity(_in_digits(gold)), quantity(_in_digits(answer))
    number = exact(one.value)
    if number is not None:
        if is_numeral(one.value) and leaves_a_sum(other.value):
            return False  # an echo of the question: the sum was not done
        said = exact(other.value)
        if said is not None:
            return units_agree(one.unit, other.unit) and _same_numbers(number, one.unit, said, other.unit)
    if not units_agree(one.unit, other.unit):
        return False
    if _is_text(one.value) or _is_text(other.value):
        return same_words(one.value, other.value)
    if spelled(one.value) == spelled(other.value):
        return True
    return is_algebra(one.value) and is_algebra(other.value) and same_function(one.value, other.value)


def _in_digits(text: str) -> str:
    """`text`, or the digits of the number up to sixteen that it is in words."""
    return _BASES.get(words(text), text)


def _same_numbers(gold: Fraction, unit: str, answer: Fraction, other: str) -> bool:
    """Equality; between a percentage and a number without a sign, of either the number before the sign or its value."""
    if (unit == "%") == (other == "%"):
        return gold == answer
    if unit == "%":
        return answer in (gold, gold / 100)
    return gold in (answer, answer / 100)


def units_agree(one: str, other: str) -> bool:
    """Whether two units are the same, as far as both are known; a percentage goes with any."""
    return not one or not other or one == other or "%" in (one, other)


def _is_text(value: str) -> bool:
    return re.fullmatch(r"\s*(?:\\text\{[^{}]*\}\s*)+", value) is not None or (
        re.fullmatch(r"[A-Za-z][A-Za-z .'-]*", value) is not None and is_wordy(value)
    )


def same_words(gold: str, answer: str) -> bool:
    """Equality of words, whatever their case; `(C)` is C."""
    one, other = words(gold), words(answer)
    return bool(one) and (one == other or one.strip("()") == other.strip("()"))


def based(text: str) -> tuple[str, str] | None:
    """(digits, base) of a numeral with a base, such as `204_5` or `101_{\\text{two}}`."""
    match = _BASED.fullmatch(spelled(text))
    return (match[1].upper(), _BASES.get(match[2], match[2])) if match is not None else None


def is_algebra(text: str) -> bool:
    r"""Whether algebra can read `text`: words, omissions and hidden digits (`5\phantom{0}`) mean nothing to it."""
    unread = (r"\text", r"\phantom", r"\ldots", r"\%")
    return not any(name in text for name in unread) and not re.search(r"(?<![\\A-Za-z])[A-Za-z]{5,}", text)
