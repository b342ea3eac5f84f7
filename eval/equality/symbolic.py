r"""Algebra: whether two LaTeX expressions are the same function of their symbols.

`math_verify` reads the LaTeX (its plain-text extraction is not used: it would pass model text to sympy's `parse_expr`,
which is Python's `eval`). Values are compared first, at random points, in high precision: that decides most pairs at
once, and math-verify's own comparison, which rounds to six decimals, never calls two numbers equal that are not.

Slow and memory-hungry on hostile input: call it through `eval.grader_pool`.
"""

import re
from functools import lru_cache
from typing import Any

DIGITS = 40
"""Significant digits of a comparison of values."""
TOLERANCE = 1e-25
"""Relative; far above rounding at `DIGITS`, far below any decimal that a model writes."""
POINTS = 3
_DEGREES = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*\^\\circ")


def same_function(gold: str, answer: str) -> bool:
    """Whether two expressions in `notation.plain` are equal wherever both are defined."""
    left, right = parsed(_in_radians(gold)), parsed(_in_radians(answer))
    if not left or not right:
        return False
    equal = _equal_values(left[0], right[0])
    if equal is not None:
        return equal
    from math_verify import verify

    return bool(verify(left, right, timeout_seconds=None))


def _in_radians(text: str) -> str:
    r"""`\sin 30^\circ` as `\sin (30\pi/180)`."""
    return _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)


@lru_cache(maxsize=512)
def parsed(expression: str) -> Any:
    """Math-verify's parses of one expression. Memoized, since a gold recurs with every draw."""
    from math_verify import LatexExtractionConfig, parse

    # The pool imposes time limits: math-verify's own use SIGALRM, which works in main threads only.
    return parse(f"${expression}$", extraction_config=(LatexExtractionConfig(),), parsing_timeout=None)


def _equal_values(left: Any, right: Any) -> bool | None:
    """Whether both agree at random points; None where values cannot tell."""
    from sympy import Abs, Expr, I, Integral, Product, Rational, Sum, Symbol
    from sympy.core.function import AppliedUndef

    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return None
    if any(side.has(AppliedUndef, Integral, Sum, Product) for side in (left, right)):
        return None
    imaginary = {symbol: I for symbol in left.free_symbols | right.free_symbols if str(symbol) == "i"}
    left, right = left.xreplace(imaginary), right.xreplace(imaginary)
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    signs = (1, 1, -1) if left.has(Abs) or right.has(Abs) else (1, 1, 1)
    compared = 0
    for point in range(POINTS if symbols else 1):
        # Irregular and different for each symbol and point; above 1, then below, and below 0 only where that is read
        # as a number's sign: of a negative number, roots and logarithms have no real value.
        scale = Rational(signs[point], 7 if point == 1 else 1)
        values = {
            symbol: scale
            * Rational(1_000_003 + 7_919 * (index + 1) * (point + 2) ** 2, 900_001 + 104_729 * index + 31 * point)
            for index, symbol in enumerate(symbols)
            if isinstance(symbol, Symbol)
        }
        try:
            one, other = (complex_value(side, values) for side in (left, right))
        except (ArithmeticError, TypeError, ValueError, AttributeError):
            return None
        if one is None or other is None:
            return None
        if abs(one - other) > TOLERANCE * max(abs(one), abs(other)):
            return False
        compared += 1
    return True if compared else None


def complex_value(expression: Any, values: Any) -> Any:
    """The value of `expression` at `values` as an mpmath number, or None if it has none."""
    import mpmath
    from sympy import Float

    number = expression.evalf(DIGITS, subs=values) if values else expression.evalf(DIGITS)
    real, imaginary = number.as_real_imag()
    if not (real.is_comparable and imaginary.is_comparable):
        return None  # infinite, undefined, or not a number
    with mpmath.workdps(DIGITS):
        value = mpmath.mpc(str(Float(real, DIGITS)), str(Float(imaginary, DIGITS)))
    return value if mpmath.isfinite(value) else None
