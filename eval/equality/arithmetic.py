r"""Arithmetic on numerals, as fractions: a reader of what LaTeX writes, not an evaluator of expressions."""

import re
from fractions import Fraction
from math import comb, factorial, isqrt

LONGEST_NUMERAL = 2_000
"""Digits."""
LARGEST_BITS = 40_000
"""Size of a power, a factorial or a binomial coefficient that is computed."""


class EnormousError(ValueError):
    """A number that is written in a few characters and would take for ever to compute."""


_TOKEN = re.compile(
    r"\s*(?:(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\s*(?:\{\d+\}|\d))"
    r"|(?P<endless>\d*\.\d*?(\d{1,6}?)\3+\s*\\ldots)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,5})?)"
    r"|(?P<command>\\(?:frac|binom|sqrt|cdot|times|div)(?![A-Za-z]))"
    r"|(?P<sign>[-+/^!(){}]))",
    re.ASCII,
)


def value_of(text: str) -> Fraction | None:
    """The value of `text`, or None if it is anything but arithmetic on numerals with a rational value.

    Raises EnormousError for a value too large to compute.
    """
    tokens = _tokens(text)
    if tokens is None:
        return None
    reader = _Reader(tokens)
    try:
        value = reader.sum()
    except (_NotRationalError, ZeroDivisionError, RecursionError):
        return None
    return value if reader.at_end else None


class _NotRationalError(Exception):
    pass


def _tokens(text: str) -> list[tuple[str, bool]] | None:
    """(token, whether white space precedes it), or None if something else is in `text`."""
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        tokens.append((match[0].strip(), match[0][:1].isspace()))
        at = match.end()
    return tokens


class _Reader:
    """Recursive descent over tokens; one method per level of precedence."""

    def __init__(self, tokens: list[tuple[str, bool]]) -> None:
        self._tokens, self._at = tokens, 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def _peek(self, ahead: int = 0) -> str:
        index = self._at + ahead
        return self._tokens[index][0] if index < len(self._tokens) else ""

    def _take(self, expected: str | None = None) -> str:
        token = self._peek()
        if not token or (expected is not None and token != expected):
            raise _NotRationalError
        self._at += 1
        return token

    def sum(self) -> Fraction:
        value = self.product()
        while self._peek() in ("+", "-"):
            value = value + self.product() if self._take() == "+" else value - self.product()
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while token := self._peek():
            if token in (r"\cdot", r"\times"):
                self._take()
                value *= self.signed()
            elif token in ("/", r"\div"):
                self._take()
                value /= self.signed()
            elif token in ("(", r"\frac", r"\binom", r"\sqrt"):
                value *= self.power()
            else:
                return value
        return value

    def signed(self) -> Fraction:
        if self._peek() in ("-", "+"):
            return -self.signed() if self._take() == "-" else self.signed()
        return self.power()

    def power(self) -> Fraction:
        base = self.atom()
        while self._peek() == "!":
            self._take()
            base = _factorial(base)
        if self._peek() != "^":
            return base
        self._take()
        exponent = self.group() if self._peek() == "{" else self.signed_atom()
        return _power(base, exponent)

    def signed_atom(self) -> Fraction:
        if self._peek() == "-":
            self._take()
            return -self.atom()
        return self.atom()

    def group(self) -> Fraction:
        self._take("{")
        value = self.sum()
        self._take("}")
        return value

    def argument(self) -> Fraction:
        if self._peek() == "{":
            return self.group()
        raise _NotRationalError

    def atom(self) -> Fraction:
        token = self._take()
        if token == "(":
            value = self.sum()
            self._take(")")
            return value
        if token == "{":
            self._at -= 1
            return self.group()
        if token == r"\frac":
            over, under = self.argument(), self.argument()
            return over / under
        if token == r"\binom":
            return _binomial(self.argument(), self.argument())
        if token == r"\sqrt":
            return _root(self.argument())
        if token[0].isdigit() or token[0] == ".":
            return self.mixed(_numeral(token), token)
        raise _NotRationalError

    def mixed(self, whole: Fraction, token: str) -> Fraction:
        r"""`2\frac14` and `2 1/4` are mixed numbers; `4 10/3` is none, and nothing else either."""
        if not token.isdigit():
            return whole
        if self._peek() == r"\frac":
            part = self.atom()
            return whole + part if 0 < part < 1 else whole * part
        spaced = self._at < len(self._tokens) and self._tokens[self._at][1]
        if self._peek().isdigit():
            over, slash, under = self._take(), self._take("/"), self._take()
            if not spaced or slash != "/" or not under.isdigit() or not 0 < int(over) < int(under):
                raise _NotRationalError
            return whole + Fraction(int(over), int(under))
        return whole


def _numeral(token: str) -> Fraction:
    if len(token) > LONGEST_NUMERAL:
        raise EnormousError(f"a numeral of {len(token):,} characters")
    if r"\ldots" in token:
        token = re.sub(r"^(\d*\.\d*?)(\d{1,6}?)\2+\s*\\ldots$", r"\1\\overline{\2}", token)
    if "\\" not in token:
        exponent = re.split("[eE]", token)[1:]
        if exponent and abs(int(exponent[0])) > LARGEST_BITS // 4:
            raise EnormousError(f"10^{exponent[0]}")
        return Fraction(token)
    head, _, period = token.partition("\\")
    digits = re.sub(r"[^\d]", "", period)
    decimals = len(head.partition(".")[2])
    start = Fraction(head if any(map(str.isdigit, head)) else "0")
    return start + Fraction(int(digits), (10 ** len(digits) - 1) * 10**decimals)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        if exponent == Fraction(1, 2):
            return _root(base)
        raise _NotRationalError
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base not in (0, 1, -1) and size * abs(exponent.numerator) > LARGEST_BITS:
        raise EnormousError(f"a power of {size * abs(exponent.numerator):,} bits")
    return base ** int(exponent)  # ZeroDivisionError for 0 to a negative power


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise _NotRationalError
    if value > 2_000:
        raise EnormousError("a factorial")
    return Fraction(factorial(int(value)))


def _binomial(over: Fraction, under: Fraction) -> Fraction:
    if over.denominator != 1 or under.denominator != 1 or over < 0 or under < 0:
        raise _NotRationalError
    if over > 10_000:
        raise EnormousError("a binomial coefficient")
    return Fraction(comb(int(over), int(under)))


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise _NotRationalError
    over, under = isqrt(value.numerator), isqrt(value.denominator)
    if over * over != value.numerator or under * under != value.denominator:
        raise _NotRationalError
    return Fraction(over, under)
